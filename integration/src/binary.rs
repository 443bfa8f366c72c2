//! Packets of the binary protocol, field by field: a test can set each of them wrong.

use std::io;

use crate::client::Client;

/// First byte of a request.
pub const REQUEST_MAGIC: u8 = 0x80;
/// First byte of a reply.
pub const REPLY_MAGIC: u8 = 0x81;
/// Length of the header that every packet begins with.
pub const HEADER_BYTES: usize = 24;
/// Where the CAS unique lies in the header.
pub const CAS_AT: usize = 16;

/// Opcodes, by the names that the protocol gives them; a `Q` at the end is a quiet form, a `K` one that tells the key.
#[allow(missing_docs)]
pub mod opcode {
    pub const GET: u8 = 0x00;
    pub const SET: u8 = 0x01;
    pub const ADD: u8 = 0x02;
    pub const REPLACE: u8 = 0x03;
    pub const DELETE: u8 = 0x04;
    pub const INCREMENT: u8 = 0x05;
    pub const DECREMENT: u8 = 0x06;
    pub const QUIT: u8 = 0x07;
    pub const FLUSH: u8 = 0x08;
    pub const GETQ: u8 = 0x09;
    pub const NOOP: u8 = 0x0a;
    pub const VERSION: u8 = 0x0b;
    pub const GETK: u8 = 0x0c;
    pub const GETKQ: u8 = 0x0d;
    pub const APPEND: u8 = 0x0e;
    pub const PREPEND: u8 = 0x0f;
    pub const STAT: u8 = 0x10;
    pub const SETQ: u8 = 0x11;
    pub const ADDQ: u8 = 0x12;
    pub const REPLACEQ: u8 = 0x13;
    pub const DELETEQ: u8 = 0x14;
    pub const INCREMENTQ: u8 = 0x15;
    pub const DECREMENTQ: u8 = 0x16;
    pub const QUITQ: u8 = 0x17;
    pub const FLUSHQ: u8 = 0x18;
    pub const APPENDQ: u8 = 0x19;
    pub const PREPENDQ: u8 = 0x1a;
    pub const TOUCH: u8 = 0x1c;
    pub const GAT: u8 = 0x1d;
    pub const GATQ: u8 = 0x1e;
    pub const SASL_LIST: u8 = 0x20;
    pub const SASL_AUTH: u8 = 0x21;
    pub const SASL_STEP: u8 = 0x22;
    pub const GATK: u8 = 0x23;
    pub const GATKQ: u8 = 0x24;
}

/// A request or a reply: the header as it is on the wire, and what follows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    /// [`REQUEST_MAGIC`] or [`REPLY_MAGIC`].
    pub magic: u8,
    /// What is asked for; a reply repeats it.
    pub opcode: u8,
    /// Length of the key in the body.
    pub key_length: u16,
    /// Length of the extras, which the body begins with.
    pub extras_length: u8,
    /// Always 0.
    pub data_type: u8,
    /// The vbucket of a request, the status of a reply.
    pub status: u16,
    /// Length of the body that is announced.
    pub body_length: u32,
    /// A number that the reply repeats.
    pub opaque: u32,
    /// The CAS unique, 0 for none.
    pub cas: u64,
    /// Extras, key and value that are sent.
    pub body: Vec<u8>,
}

impl Packet {
    /// A request whose lengths are those of its parts.
    ///
    /// # Panics
    /// When a part is too long for the field that tells its length.
    pub fn request(opcode: u8, extras: &[u8], key: &[u8], value: &[u8]) -> Self {
        let body = [extras, key, value].concat();
        Self {
            magic: REQUEST_MAGIC,
            opcode,
            key_length: key.len().try_into().expect("a key is below 64 KiB"),
            extras_length: extras.len().try_into().expect("extras are below 256 bytes"),
            data_type: 0,
            status: 0,
            body_length: body.len().try_into().expect("a body is below 4 GiB"),
            opaque: 0,
            cas: 0,
            body,
        }
    }

    /// The same with another opaque.
    pub fn with_opaque(self, opaque: u32) -> Self {
        Self { opaque, ..self }
    }

    /// The bytes on the wire.
    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEADER_BYTES + self.body.len());
        bytes.extend([self.magic, self.opcode]);
        bytes.extend(self.key_length.to_be_bytes());
        bytes.extend([self.extras_length, self.data_type]);
        bytes.extend(self.status.to_be_bytes());
        bytes.extend(self.body_length.to_be_bytes());
        bytes.extend(self.opaque.to_be_bytes());
        bytes.extend(self.cas.to_be_bytes());
        bytes.extend_from_slice(&self.body);
        bytes
    }

    /// Reads one packet.
    ///
    /// # Errors
    /// `UnexpectedEof` when the connection was closed before a whole one came, `InvalidData` when it does not begin
    /// like a reply.
    pub fn read(client: &mut Client) -> io::Result<Self> {
        let header = client.exact(HEADER_BYTES)?;
        if header[0] != REPLY_MAGIC {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("no reply: {}", header.escape_ascii()),
            ));
        }
        let body_length = u32::from_be_bytes(field(&header, 8));
        Ok(Self {
            magic: header[0],
            opcode: header[1],
            key_length: u16::from_be_bytes(field(&header, 2)),
            extras_length: header[4],
            data_type: header[5],
            status: u16::from_be_bytes(field(&header, 6)),
            body_length,
            opaque: u32::from_be_bytes(field(&header, 12)),
            cas: u64::from_be_bytes(field(&header, CAS_AT)),
            body: client.exact(body_length as usize)?,
        })
    }

    /// The body behind extras and key.
    pub fn value(&self) -> &[u8] {
        let from = usize::from(self.extras_length) + usize::from(self.key_length);
        self.body.get(from..).unwrap_or_default()
    }
}

fn field<const LENGTH: usize>(header: &[u8], at: usize) -> [u8; LENGTH] {
    let bytes = header[at..].first_chunk();
    *bytes.expect("every field lies within the header")
}
