//! A panic while a connection is served ends that connection and nothing else.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::*;
use crate::clock::Clock;
use crate::command::{Control, Detail, Settings};
use crate::metrics::Metrics;
use crate::tier::{Cache, TierConfig};
use crate::units::ByteSize;

/// A connection whose bytes nobody survives.
#[derive(Debug)]
pub(in crate::server) struct Poison(pub(in crate::server) UnixStream);

impl AsyncRead for Poison {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        _: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        panic!("poisoned bytes, as this test wants them")
    }
}

impl AsyncWrite for Poison {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, _: &[u8]) -> Poll<io::Result<usize>> {
        unreachable!("nothing was read")
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

impl crate::server::stream::Transport for Poison {}

fn shared() -> Arc<Shared> {
    let config = TierConfig {
        hot_size: ByteSize::mib(2),
        cold_size: ByteSize::mib(6),
        ..TierConfig::default()
    };
    let clock = Arc::new(Clock::system());
    let metrics = Arc::new(Metrics::starting_at(clock.now()));
    let (cache, _) = Cache::start(
        config,
        Arc::clone(&clock),
        Arc::clone(&metrics),
        None,
        1,
        &|_, _, _| {},
    )
    .unwrap();
    Arc::new(Shared {
        upstream: None,
        cache,
        metrics,
        clock,
        settings: Settings {
            item_size_max: 1 << 20,
            max_connections: 4,
            threads: 1,
            flush_enabled: true,
            dump_enabled: true,
            sizes_enabled: false,
            watch_enabled: true,
            shutdown_enabled: false,
            cas_enabled: true,
            strict: None,
            rows: Vec::new(),
        },
        tls: None,
        users: None,
        control: Control::default(),
        detail: Detail::new(b':'),
        watch: Arc::new(crate::watch::Watch::new(4 << 10)),
        clients: clients::Clients::default(),
    })
}

#[test]
fn a_panic_ends_its_connection_alone() {
    let shared = shared();
    let timers = Builder::new_current_thread().enable_all().build().unwrap();
    let site = Site::new(
        &ServerConfig::default(),
        Arc::clone(&shared),
        timers.handle().clone(),
    );
    let gate = Arc::clone(&site.gate);
    let (inbox, thread) = start(0, &Arc::new(site)).unwrap();
    let (client, socket) = UnixStream::pair().unwrap();
    socket.set_nonblocking(true).unwrap();
    let ask = |mut client: &UnixStream| {
        client.write_all(b"mn\r\n").unwrap();
        let mut answer = [0; 4];
        client.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"MN\r\n");
    };

    inbox
        .blocking_send(Message::Serve(Socket::Unix(socket), gate.enter().unwrap()))
        .unwrap();
    ask(&client);
    inbox
        .blocking_send(Message::Serve(
            Socket::Test(Poison(UnixStream::pair().unwrap().0)),
            gate.enter().unwrap(),
        ))
        .unwrap();
    // The worker takes its messages in turn, so the poisoned connection is over once this one is served.
    let (second, socket) = UnixStream::pair().unwrap();
    socket.set_nonblocking(true).unwrap();
    inbox
        .blocking_send(Message::Serve(Socket::Unix(socket), gate.enter().unwrap()))
        .unwrap();
    ask(&second);
    ask(&client);

    let server = &shared.metrics.server;
    assert_eq!(
        (
            server.panics.load(Relaxed),
            server.curr_connections.load(Relaxed)
        ),
        (1, 2)
    );
    inbox.blocking_send(Message::Stop).unwrap();
    thread.join().unwrap();
    shared.cache.stop();
}
