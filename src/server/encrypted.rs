//! An encrypted connection: the handshake on the worker, then a connection like any other.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::atomic::Ordering::Relaxed;
use std::task::Poll;

use tokio::io::AsyncWrite;

use super::connection;
use super::stream::{Stream, Transport};
use super::worker::Place;
use crate::clients::Doing;
use crate::tls::{self, ClientCertificate};

impl Transport for &mut tls::Stream<Stream> {
    fn may_have_more(&self) -> bool {
        // What is decrypted already is little: a record at most.
        tls::socket::<Stream>(self).may_have_more()
    }
}

/// Shakes hands with a client, then serves it. The handshake has
/// [`ENTRY_SECONDS_MAX`](super::ENTRY_SECONDS_MAX) seconds and nobody waits for it.
pub(super) async fn serve(stream: Stream, wanted: ClientCertificate, place: Place) {
    let site = &place.worker.site;
    let Some(certificates) = &site.shared.tls else {
        return;
    };
    let counters = &site.shared.metrics.server;
    place.client.set_doing(Doing::Entering);
    // Boxed: as long as the connection lives its memory would be part of it.
    let mut stream = match Box::pin(certificates.accept(wanted, stream)).await {
        Ok(stream) => stream,
        Err(error) => {
            counters.ssl_handshake_errors.fetch_add(1, Relaxed);
            place.client.fail();
            let (connection, peer) = (place.client.id(), place.client.peer());
            tracing::debug!(connection, %peer, %error, "handshake failed");
            return;
        }
    };
    if tls::is_new_session(&stream) {
        counters.ssl_new_sessions.fetch_add(1, Relaxed);
    }
    connection::serve(&mut stream, place, tls::UNSENT_BYTES_MAX).await;
    // Says goodbye if the socket takes it at once; nobody waits for a client that is gone.
    poll_fn(|cx| {
        let _ = Pin::new(&mut stream).poll_shutdown(cx);
        Poll::Ready(())
    })
    .await;
}
