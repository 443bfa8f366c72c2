//! A connection that only listens: `watch` streams events to it until it leaves.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::watch::Subscription;

/// Streams lines until the client closes its side. What it still sends is read and dropped, as in
/// memcached: there is no way back to commands.
pub(super) async fn stream_events<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    mut subscription: Box<Subscription>,
) -> io::Result<()> {
    let mut ignored = [0; 64];
    loop {
        tokio::select! {
            lines = subscription.lines() => {
                // While a client does not read, its lines wait in the subscription's bounded buffer.
                stream.write_all(lines).await?;
                stream.flush().await?;
            }
            received = stream.read(&mut ignored) => {
                if received? == 0 {
                    return Ok(());
                }
            }
        }
    }
}
