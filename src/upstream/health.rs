//! Whether a server is alive, asked by a client that is not ours: the `memcache` crate.
//!
//! It makes a connection of its own for each question and sends one `mn`, so that what is wrong with
//! our pipelines cannot make a server look dead or alive. It speaks TCP alone: servers with
//! encryption, a login or a unix socket are asked over our own connection.

use memcache::exp::AsyncMetaClient;

use super::server::Server;

/// Whether the server answers at one of its addresses; none if this client cannot reach it.
pub(super) async fn is_alive(server: &Server) -> Option<bool> {
    let name = server.way.name().filter(|_| !server.access.is_any())?;
    for address in &*name.known() {
        let client = AsyncMetaClient::builder()
            .connect_timeout(Some(server.connect_timeout))
            .io_timeout(Some(server.request_timeout))
            .max_idle(0)
            .connect_async(*address);
        if let Ok(client) = client.await
            && client.noop().await.is_ok()
        {
            return Some(true);
        }
    }
    name.look_again();
    Some(false)
}
