//! Requests whose CAS values are symbols: each server gets the number that it gave out itself.

/// A piece of a request.
#[derive(Clone, Debug)]
pub enum Piece {
    /// Sent as it is.
    Bytes(Vec<u8>),
    /// The CAS value that was seen as the `symbol`-th new one, plus `offset`.
    Cas { symbol: usize, offset: i64 },
}

/// What a request wants to be compared as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Both servers answer and keep the connection.
    Open,
    /// The connection is expected to be closed by it; nothing may follow on it.
    Closes,
}

/// One request, and what the coverage table counts it under.
#[derive(Clone, Debug)]
pub struct Request {
    pub pieces: Vec<Piece>,
    pub command: &'static str,
    /// The flags or the way in which it is malformed.
    pub flags: Vec<String>,
    pub malformed: bool,
    pub ending: Ending,
    /// Sent only after all earlier replies were read: memcached's answer depends on replies that are still under way.
    pub fresh: bool,
    /// Has a mark before and after it in every pipeline, because its answer may be a known difference.
    pub alone: bool,
    /// The key whose CAS the reply tells, if it tells one.
    pub key: Option<Vec<u8>>,
}

impl Request {
    pub fn new(command: &'static str) -> Self {
        Self {
            pieces: Vec::new(),
            command,
            flags: Vec::new(),
            malformed: false,
            ending: Ending::Open,
            fresh: false,
            alone: false,
            key: None,
        }
    }

    pub fn push(&mut self, bytes: impl AsRef<[u8]>) -> &mut Self {
        match self.pieces.last_mut() {
            Some(Piece::Bytes(last)) => last.extend_from_slice(bytes.as_ref()),
            _ => self.pieces.push(Piece::Bytes(bytes.as_ref().to_vec())),
        }
        self
    }

    pub fn push_cas(&mut self, symbol: usize, offset: i64) -> &mut Self {
        self.pieces.push(Piece::Cas { symbol, offset });
        self
    }

    pub fn flag(&mut self, flag: impl Into<String>) -> &mut Self {
        self.flags.push(flag.into());
        self
    }

    pub fn malformed(&mut self, how: &str) -> &mut Self {
        self.malformed = true;
        self.flags = vec![format!("({how})")];
        self
    }

    /// The bytes for the server that gave out `cas_values`.
    pub fn bytes(&self, cas_values: &[u64]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for piece in &self.pieces {
            match piece {
                Piece::Bytes(piece) => bytes.extend_from_slice(piece),
                Piece::Cas { symbol, offset } => {
                    let value = cas_values[*symbol].wrapping_add_signed(*offset);
                    bytes.extend_from_slice(value.to_string().as_bytes());
                }
            }
        }
        bytes
    }
}

/// Bytes as a person reads them in a message, long ones cut.
pub fn show(bytes: &[u8]) -> String {
    const SHOWN_BYTES_MAX: usize = 400;
    let cut = &bytes[..bytes.len().min(SHOWN_BYTES_MAX)];
    let more = if cut.len() < bytes.len() {
        format!("... ({} bytes)", bytes.len())
    } else {
        String::new()
    };
    format!("\"{}\"{more}", cut.escape_ascii())
}
