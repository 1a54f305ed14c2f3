//! What the tag of an AEAD covers (RFC 8439 §2.8, NIST SP 800-38D §7.1), in blocks of 16 bytes.
//!
//! ```text
//! associated ‖ zeros ‖ ciphertext ‖ zeros ‖ length of associated ‖ length of ciphertext
//! ```

/// A block.
pub(super) type Block = [u8; 16];

/// Stands for a block that is not there.
pub(super) static ZERO: Block = [0; 16];

/// The mask of a row that is alive.
pub(super) static ONES: Block = [0xff; 16];

/// The blocks of a row, in runs that lie together in memory. All rows have as many runs; a run may be empty.
#[derive(Clone, Copy)]
pub(super) struct Covered<'a> {
    associated: &'a [Block],
    ciphertext: &'a [Block],
    /// The ends of both, filled up with zeros, and the lengths. Nothing of it is secret.
    edges: [Block; 3],
    /// Whether these ends have any bytes.
    ends: [bool; 2],
}

impl<'a> Covered<'a> {
    /// Runs of a row.
    pub(super) const RUNS: usize = 4;
    /// A row that is not there.
    pub(super) const NONE: Self = Self { associated: &[], ciphertext: &[], edges: [ZERO; 3], ends: [false; 2] };

    /// Makes it a row's, in its place: moved after it is written, it takes longer than the blocks take to hash.
    #[inline(always)]
    pub(super) fn set(&mut self, associated: &'a [u8], ciphertext: &'a [u8], lengths: Block) {
        let end;
        (self.associated, end) = associated.as_chunks();
        self.ends[0] = set_end(&mut self.edges[0], end);
        let end;
        (self.ciphertext, end) = ciphertext.as_chunks();
        self.ends[1] = set_end(&mut self.edges[1], end);
        self.edges[2] = lengths;
    }

    /// One of its runs.
    #[inline(always)]
    pub(super) fn run(&self, number: usize) -> &[Block] {
        match number {
            0 => self.associated,
            1 => &self.edges[..usize::from(self.ends[0])],
            2 => self.ciphertext,
            _ => &self.edges[2 - usize::from(self.ends[1])..],
        }
    }
}

#[inline(always)]
fn set_end(edge: &mut Block, end: &[u8]) -> bool {
    if end.is_empty() {
        return false;
    }
    *edge = ZERO;
    edge[..end.len()].copy_from_slice(end);
    true
}

/// One run of each of several rows, taken block by block.
pub(super) struct Runs<'a, const ROWS: usize> {
    blocks: [&'a [Block]; ROWS],
    /// As many blocks as every row has.
    pub(super) least: usize,
    /// As many blocks as some row has.
    pub(super) most: usize,
}

impl<'a, const ROWS: usize> Runs<'a, ROWS> {
    /// Of `ROWS` rows from `first` on; in the place of a row that is not there stands the last one once more.
    #[inline(always)]
    pub(super) fn of(covered: &'a [Covered<'a>], first: usize, number: usize) -> Self {
        let mut blocks: [&[Block]; ROWS] = [&[]; ROWS];
        for lane in 0..ROWS {
            blocks[lane] = covered[(first + lane).min(covered.len() - 1)].run(number);
        }
        Self::new(blocks)
    }

    /// Of these blocks.
    #[inline(always)]
    pub(super) fn new(blocks: [&'a [Block]; ROWS]) -> Self {
        let mut runs = Self { blocks, least: 0, most: 0 };
        runs.count();
        runs
    }

    /// What is left of each row's run.
    #[inline(always)]
    pub(super) fn blocks(&mut self) -> &mut [&'a [Block]; ROWS] {
        &mut self.blocks
    }

    /// Counts anew, after [`Runs::blocks`] was changed.
    #[inline(always)]
    pub(super) fn count(&mut self) {
        (self.least, self.most) = (usize::MAX, 0);
        for blocks in &self.blocks {
            self.least = self.least.min(blocks.len());
            self.most = self.most.max(blocks.len());
        }
    }

    /// A block of each row; zeros where the row has ended.
    #[inline(always)]
    pub(super) fn at(&self, index: usize) -> [&'a Block; ROWS] {
        let mut at = [&ZERO; ROWS];
        for lane in 0..ROWS {
            at[lane] = self.blocks[lane].get(index).unwrap_or(&ZERO);
        }
        at
    }

    /// All ones for the rows that have this block, zeros for the others.
    #[inline(always)]
    pub(super) fn alive(&self, index: usize) -> [&'static Block; ROWS] {
        let mut alive = [&ZERO; ROWS];
        for lane in 0..ROWS {
            if index < self.blocks[lane].len() {
                alive[lane] = &ONES;
            }
        }
        alive
    }
}
