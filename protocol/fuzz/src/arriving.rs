//! Bytes of a connection that arrive in pieces, without being copied: a window that moves over them.

/// How a connection's bytes arrive.
#[derive(Debug, Clone, Copy)]
pub enum Pieces {
    /// All at once.
    Whole,
    /// So many at a time.
    Of(usize),
    /// In two pieces, the first of so many bytes.
    CutAt(usize),
}

/// A connection's bytes, those of them that have arrived, and those that were consumed.
#[derive(Debug)]
pub struct Arriving<'a> {
    bytes: &'a [u8],
    pieces: Pieces,
    arrived: usize,
    consumed: usize,
}

impl<'a> Arriving<'a> {
    /// A connection that will send `bytes`; the first piece has arrived.
    pub fn new(bytes: &'a [u8], pieces: Pieces) -> Self {
        let mut arriving = Self {
            bytes,
            pieces,
            arrived: 0,
            consumed: 0,
        };
        arriving.more();
        arriving
    }

    /// What has arrived and was not consumed.
    pub fn buffer(&self) -> &'a [u8] {
        &self.bytes[self.consumed..self.arrived]
    }

    /// Takes `count` bytes off the front.
    #[track_caller]
    pub fn consume(&mut self, count: usize) {
        assert!(count > 0, "no progress");
        self.consumed += count;
        assert!(self.consumed <= self.arrived, "more than there is");
    }

    /// Waits for the next piece; false if there is none.
    pub fn more(&mut self) -> bool {
        let end = match self.pieces {
            Pieces::Whole => self.bytes.len(),
            Pieces::Of(size) => self.arrived + size.max(1),
            Pieces::CutAt(cut) if self.arrived < cut => cut,
            Pieces::CutAt(_) => self.bytes.len(),
        };
        let before = self.arrived;
        self.arrived = end.min(self.bytes.len());
        self.arrived > before
    }
}
