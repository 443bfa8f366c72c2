//! Requests whose CAS values are symbols: each server gets the number that it gave out itself.

/// A piece of a request.
#[derive(Clone, Debug)]
pub enum Piece {
    /// Sent as it is.
    Bytes(Vec<u8>),
    /// The CAS value that was seen as the `symbol`-th new one, plus `offset`.
    Cas {
        symbol: usize,
        offset: i64,
        form: CasForm,
    },
}

/// The CAS value that a request names.
#[derive(Clone, Copy, Debug)]
pub enum Cas {
    /// One that the server gave out, plus `offset`.
    Seen { symbol: usize, offset: i64 },
    /// The same number for both servers.
    Foreign(u64),
}

/// How a request spells a CAS value.
#[derive(Clone, Copy, Debug)]
pub enum CasForm {
    /// As text.
    Decimal,
    /// As eight bytes.
    BigEndian,
}

impl CasForm {
    fn bytes(self, value: u64) -> Vec<u8> {
        match self {
            CasForm::Decimal => value.to_string().into_bytes(),
            CasForm::BigEndian => value.to_be_bytes().to_vec(),
        }
    }
}

/// What a request wants to be compared as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Both servers answer and keep the connection.
    Open,
    /// The connection is expected to be closed by it; nothing may follow on it.
    Closes,
    /// The client says after it that nothing more comes, and the server closes when it answered what it could.
    Finishes,
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

    pub fn push_cas(&mut self, cas: Cas, form: CasForm) -> &mut Self {
        match cas {
            Cas::Seen { symbol, offset } => {
                self.pieces.push(Piece::Cas {
                    symbol,
                    offset,
                    form,
                });
                self
            }
            Cas::Foreign(value) => self.push(form.bytes(value)),
        }
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
                Piece::Cas {
                    symbol,
                    offset,
                    form,
                } => {
                    let value = cas_values[*symbol].wrapping_add_signed(*offset);
                    bytes.extend(form.bytes(value));
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
