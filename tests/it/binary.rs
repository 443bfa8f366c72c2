//! The binary protocol over real connections, beside text on the same port.

use std::io::{Read, Write};

use tiercache_protocol::binary::Opcode;
use tiercache_protocol::{DecodedReply, PacketDecoder, Reply};

use crate::support::{Client, Server};

/// Flags 5, no exptime.
const STORE: &[u8] = &[0, 0, 0, 5, 0, 0, 0, 0];

/// A request without CAS unique whose opaque number is its opcode.
fn packet(opcode: Opcode, extras: &[u8], key: &[u8], value: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0x80, opcode.0];
    bytes.extend((key.len() as u16).to_be_bytes());
    bytes.extend([extras.len() as u8, 0, 0, 0]);
    bytes.extend(((extras.len() + key.len() + value.len()) as u32).to_be_bytes());
    bytes.extend(u32::from(opcode.0).to_be_bytes());
    bytes.extend([0; 8]);
    [&bytes, extras, key, value].concat()
}

fn key(opcode: Opcode, key: &[u8]) -> Vec<u8> {
    packet(opcode, b"", key, b"")
}

/// Reads one reply: opcode, status, key, value.
#[track_caller]
fn reply<S: Read + Write>(client: &mut Client<S>) -> (Opcode, u16, Vec<u8>, Vec<u8>) {
    let mut bytes = client.receive(24);
    let decoder = PacketDecoder::new(1 << 20);
    if let DecodedReply::More { total: Some(total) } = decoder.decode(&bytes) {
        bytes.extend(client.receive(total - bytes.len()));
    }
    match decoder.decode(&bytes) {
        DecodedReply::Reply {
            reply: Reply::Packet(packet),
            ..
        } => {
            assert_eq!(packet.opaque, u32::from(packet.opcode.0));
            let (key, value) = (packet.key.to_vec(), packet.value.to_vec());
            (packet.opcode, packet.status, key, value)
        }
        other => panic!("{} is {other:?}", bytes.escape_ascii()),
    }
}

/// Sends packets and expects replies, each as opcode, status, key and value.
#[track_caller]
fn check<S: Read + Write>(
    client: &mut Client<S>,
    packets: &[Vec<u8>],
    replies: &[(Opcode, u16, &[u8], &[u8])],
) {
    client.send(&packets.concat());
    for expected in replies {
        let (opcode, status, key, value) = reply(client);
        assert_eq!((opcode, status, &key[..], &value[..]), *expected);
    }
}

// What one syntax stores the other reads; a packet's key may be any bytes.
#[test]
fn both_syntaxes_share_a_port_and_the_items() {
    let server = Server::start(&[]);
    let (mut text, mut binary) = (server.connect(), server.connect());
    text.check("set a 3 0 1\r\n1\r\n", "STORED\r\n");
    check(
        &mut binary,
        &[
            key(Opcode::GETK, b"a"),
            packet(Opcode::SET, STORE, b"b", b"2"),
            packet(Opcode::SETQ, STORE, b"with space\r\n", b"3"),
            key(Opcode::GET, b"with space\r\n"),
        ],
        &[
            (Opcode::GETK, 0, b"a", b"1"),
            (Opcode::SET, 0, b"", b""),
            (Opcode::GET, 0, b"", b"3"),
        ],
    );
    text.check("get b\r\n", "VALUE b 5 1\r\n2\r\nEND\r\n");
    // A key that no line can carry is told in base64.
    text.check(
        "mg d2l0aCBzcGFjZQ0K b k v\r\n",
        "VA 1 kd2l0aCBzcGFjZQ0K b\r\n3\r\n",
    );
}

// What a packet's key holds neither ends a line of a listing nor passes for one of its own.
#[test]
fn keys_of_packets_cannot_forge_lines() {
    let server = Server::start(&[]);
    let (mut text, mut binary) = (server.connect(), server.connect());
    text.check("stats detail on\r\n", "OK\r\n");
    check(
        &mut binary,
        &[packet(Opcode::SET, STORE, b"a\r\nflush_all\r\n:", b"1")],
        &[(Opcode::SET, 0, b"", b"")],
    );
    text.check("stats cachedump 1 0\r\n", "END\r\n");
    text.check(
        "lru_crawler mgdump all\r\n",
        "OK\r\nmg YQ0KZmx1c2hfYWxsDQo6 b\r\nEN\r\n",
    );
    text.check(
        "stats detail dump\r\n",
        "PREFIX a%0D%0Aflush_all%0D%0A get 0 hit 0 set 1 del 0\r\nEND\r\n",
    );
}

// A pipeline of quiet requests answers hits and errors alone, in order, up to the noop.
#[test]
fn quiet_pipelines_answer_in_order() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    let packets = [
        packet(Opcode::SETQ, STORE, b"a", b"1"),
        packet(Opcode::SETQ, STORE, b"b", b"2"),
        packet(Opcode::ADDQ, STORE, b"a", b"x"),
        key(Opcode::GETKQ, b"a"),
        key(Opcode::GETQ, b"missing"),
        key(Opcode::DELETEQ, b"missing"),
        key(Opcode::GETKQ, b"b"),
        key(Opcode::NOOP, b""),
    ];
    check(
        &mut client,
        &packets,
        &[
            (Opcode::ADDQ, 2, b"", b"Data exists for key."),
            (Opcode::GETKQ, 0, b"a", b"1"),
            (Opcode::DELETEQ, 1, b"", b"Not found"),
            (Opcode::GETKQ, 0, b"b", b"2"),
            (Opcode::NOOP, 0, b"", b""),
        ],
    );
    client.send(&key(Opcode::QUIT, b""));
    assert_eq!(reply(&mut client).0, Opcode::QUIT);
    assert_eq!(client.rest(), b"");
}

// What only lies on disk is answered in its place too.
#[test]
fn items_of_dry_keep_the_order_of_a_quiet_pipeline() {
    let arguments = [
        "-p",
        "-1",
        "-l",
        "127.0.0.1",
        "-m",
        "16",
        "-t",
        "1",
        "--dry",
        "dry",
    ];
    let arguments = [&arguments[..], &["--dry-size", "64m"]].concat();
    let server = Server::start_in(tempfile::tempdir().unwrap(), &arguments);
    let mut client = server.connect();
    let names: Vec<String> = (0..100).map(|number| format!("key{number:02}")).collect();
    for name in &names {
        let set = packet(Opcode::SET, STORE, name.as_bytes(), name.as_bytes());
        check(&mut client, &[set], &[(Opcode::SET, 0, b"", b"")]);
    }
    let (_, log, folder) = server.terminate();
    std::fs::remove_file(folder.path().join("ports")).unwrap();
    let server = Server::start_in(folder, &arguments);
    let mut client = server.connect();
    let mut packets = Vec::new();
    for name in &names {
        packets.push(key(Opcode::GETKQ, name.as_bytes()));
        packets.push(key(Opcode::GETKQ, b"missing"));
    }
    packets.push(key(Opcode::NOOP, b""));
    let hits = names
        .iter()
        .map(|name| (Opcode::GETKQ, 0, name.as_bytes(), name.as_bytes()));
    let noop = (Opcode::NOOP, 0, &b""[..], &b""[..]);
    let replies: Vec<_> = hits.chain([noop]).collect();
    check(&mut client, &packets, &replies);
    assert_eq!(server.stat("dry_hits"), 100, "{log}");
}

// A value over the limit is swallowed, the old one goes, the connection stays.
#[test]
fn an_oversized_packet_is_swallowed() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    check(
        &mut client,
        &[
            packet(Opcode::SETQ, STORE, b"k", b"old"),
            packet(Opcode::SET, STORE, b"k", &vec![b'x'; 3_000_000]),
            key(Opcode::GET, b"k"),
        ],
        &[
            (Opcode::SET, 3, b"", b"Too large."),
            (Opcode::GET, 1, b"", b"Not found"),
        ],
    );
}

// Figures come as packets, the last one empty; what is unknown is not found.
#[test]
fn statistics_come_as_packets() {
    let server = Server::start(&["-B", "binary"]);
    let mut client = server.connect();
    client.send(&key(Opcode::STAT, b"settings"));
    let mut protocol = Vec::new();
    loop {
        let (_, status, name, value) = reply(&mut client);
        assert_eq!(status, 0);
        if name == b"binding_protocol" {
            protocol = value;
        } else if name.is_empty() {
            break;
        }
    }
    assert_eq!(protocol, b"binary");
    check(
        &mut client,
        &[key(Opcode::STAT, b"nonsense"), key(Opcode::STAT, b"reset")],
        &[
            (Opcode::STAT, 1, b"", b"Not found"),
            (Opcode::STAT, 0, b"", b""),
        ],
    );
}

// What contradicts itself is answered, and ends the connection; so does the other syntax, unanswered.
#[test]
fn malformed_packets_end_the_connection() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    let malformed = packet(Opcode::GET, b"", b"", b"");
    check(
        &mut client,
        &[malformed],
        &[(Opcode::GET, 4, b"", b"Invalid arguments")],
    );
    assert_eq!(client.rest(), b"");

    let server = Server::start(&["-B", "binary"]);
    let mut client = server.connect();
    client.send(b"get a_key_of_many_letters\r\n");
    assert_eq!(client.rest(), b"");

    let server = Server::start(&["-B", "ascii"]);
    let mut client = server.connect();
    client.send(&key(Opcode::VERSION, b""));
    client.check("\r\n", "ERROR\r\n");
}

// SASL is unknown without -S; the connection goes on behind its token.
#[test]
fn sasl_is_unknown_without_authentication() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    let unknown = b"Unknown command";
    check(
        &mut client,
        &[
            key(Opcode::SASL_LIST, b""),
            packet(Opcode::SASL_AUTH, b"", b"PLAIN", b"\0user\0pass"),
            packet(Opcode::SASL_STEP, b"", b"PLAIN", &[b'x'; 100_000]),
            key(Opcode::NOOP, b""),
        ],
        &[
            (Opcode::SASL_LIST, 0x81, b"", unknown),
            (Opcode::SASL_AUTH, 0x81, b"", unknown),
            (Opcode::SASL_STEP, 0x81, b"", unknown),
            (Opcode::NOOP, 0, b"", b""),
        ],
    );
}
