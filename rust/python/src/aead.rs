//! Batch AEAD with a key a row, straight on the lanes; `interlane.aead` is its face.

use interlane::Status;
use interlane_lanes::isa::{Backend, TILE};
use interlane_lanes::kernels::{chacha20poly1305, gcm};
use pyo3::prelude::*;
use pyo3::types::{PyList, PyTuple};

use crate::errors::{backend, malformed};
use crate::input::{self, OwnedRows};
use crate::rows::Rows;

/// Bytes of a tag, of both algorithms.
const TAG: usize = 16;

#[derive(Clone, Copy)]
enum Algorithm {
    Gcm,
    ChaCha,
}

impl Algorithm {
    fn named(name: &str) -> PyResult<Self> {
        match name {
            "aes-256-gcm" => Ok(Self::Gcm),
            "chacha20-poly1305" => Ok(Self::ChaCha),
            _ => Err(malformed("algorithm", format!("{name:?}; give \"aes-256-gcm\" or \"chacha20-poly1305\""))),
        }
    }

    fn seal(self, backend: Backend, tile: Tile<'_>) {
        let Tile { keys, nonces, associated, rows, .. } = tile;
        match self {
            Self::Gcm => backend.run(gcm::Seal { keys, nonces, associated, rows }),
            Self::ChaCha => backend.run(chacha20poly1305::Seal { keys, nonces, associated, rows }),
        }
    }

    fn open(self, backend: Backend, tile: Tile<'_>) {
        let Tile { keys, nonces, associated, rows, ok } = tile;
        match self {
            Self::Gcm => backend.run(gcm::Open { keys, nonces, associated, rows, ok }),
            Self::ChaCha => backend.run(chacha20poly1305::Open { keys, nonces, associated, rows, ok }),
        }
    }
}

/// What the tags cover besides the rows.
enum Associated {
    /// The same for all rows.
    Shared(Vec<u8>),
    Own(OwnedRows),
}

impl Associated {
    fn row(&self, row: usize) -> &[u8] {
        match self {
            Self::Shared(bytes) => bytes,
            Self::Own(rows) => &rows.data[rows.offsets[row] as usize..rows.offsets[row + 1] as usize],
        }
    }
}

/// A call's arguments, checked and owned.
struct Arguments {
    algorithm: Algorithm,
    backend: Backend,
    keys: input::Keys<32>,
    nonces: input::Keys<12>,
    rows: OwnedRows,
    associated: Associated,
    /// Whether a row's tag was right; sealing has nothing to refuse.
    ok: Vec<bool>,
}

/// A tile's worth of arguments, as the kernels take them.
struct Tile<'a> {
    keys: &'a [[u8; 32]],
    nonces: &'a [[u8; 12]],
    associated: &'a [&'a [u8]],
    rows: &'a mut [&'a mut [u8]],
    ok: &'a mut [bool],
}

impl Arguments {
    fn new(
        algorithm: &str,
        keys: &Bound<'_, PyAny>,
        nonces: &Bound<'_, PyAny>,
        data: &Bound<'_, PyAny>,
        offsets: Option<&Bound<'_, PyAny>>,
        associated: Option<&Bound<'_, PyAny>>,
        room: usize,
    ) -> PyResult<Self> {
        let algorithm = Algorithm::named(algorithm)?;
        let rows = input::rows("data", data, offsets, room)?;
        let count = rows.offsets.len() - 1;
        let associated = match associated {
            None => Associated::Shared(Vec::new()),
            Some(all) if all.is_instance_of::<PyList>() || all.is_instance_of::<PyTuple>() => {
                let given = input::rows("associated", all, None, 0)?;
                if given.offsets.len() - 1 != count {
                    let given = given.offsets.len() - 1;
                    return Err(malformed("associated", format!("{given} for {count} rows; give one for each row")));
                }
                Associated::Own(given)
            }
            Some(shared) => Associated::Shared(input::bytes("associated", shared)?),
        };
        Ok(Self {
            algorithm,
            backend: backend(None)?,
            keys: input::fixed("keys", keys, count)?,
            nonces: input::fixed("nonces", nonces, count)?,
            rows,
            associated,
            ok: vec![true; count],
        })
    }

    /// Gives one tile of rows after the other to `work`.
    fn tiles(&mut self, work: impl Fn(Tile<'_>)) {
        let Self { keys, nonces, rows: OwnedRows { data, offsets }, associated, ok, .. } = self;
        let count = ok.len();
        let mut rest = data.as_mut_slice();
        for start in (0..count).step_by(TILE) {
            let end = count.min(start + TILE);
            let mut rows: [&mut [u8]; TILE] = Default::default();
            let mut covered: [&[u8]; TILE] = [&[]; TILE];
            for (lane, row) in (start..end).enumerate() {
                rows[lane] = rest
                    .split_off_mut(..(offsets[row + 1] - offsets[row]) as usize)
                    .expect("the rows were copied one after the other");
                covered[lane] = associated.row(row);
            }
            work(Tile {
                keys: &keys[start..end],
                nonces: &nonces[start..end],
                associated: &covered[..end - start],
                rows: &mut rows[..end - start],
                ok: &mut ok[start..end],
            });
        }
    }

    fn seal(mut self) -> interlane::Rows {
        let (algorithm, backend) = (self.algorithm, self.backend);
        self.tiles(|tile| algorithm.seal(backend, tile));
        self.ended()
    }

    fn open(mut self) -> interlane::Rows {
        let (algorithm, backend) = (self.algorithm, self.backend);
        self.tiles(|tile| algorithm.open(backend, tile));
        // The plaintexts close up over the tags and over the rows that failed.
        let OwnedRows { data, offsets } = &mut self.rows;
        let (mut start, mut at) = (0, 0);
        for (row, ok) in self.ok.iter().enumerate() {
            let end = offsets[row + 1] as usize;
            if *ok {
                data.copy_within(start..end - TAG, at);
                at += end - TAG - start;
            }
            offsets[row + 1] = at as i64;
            start = end;
        }
        data.truncate(at);
        self.ended()
    }

    fn ended(self) -> interlane::Rows {
        let OwnedRows { data, offsets } = self.rows;
        let status = self.ok.into_iter().map(|ok| if ok { Status::Ok } else { Status::Invalid } as u8).collect();
        interlane::Rows::of_bytes(status, offsets, data)
    }
}

/// Encrypts row `i` under `keys[i]` and `nonces[i]`; the row's tag follows it.
#[pyfunction]
#[pyo3(signature = (algorithm, keys, nonces, data, offsets=None, *, associated=None))]
pub(crate) fn aead_seal(
    py: Python<'_>,
    algorithm: &str,
    keys: &Bound<'_, PyAny>,
    nonces: &Bound<'_, PyAny>,
    data: &Bound<'_, PyAny>,
    offsets: Option<&Bound<'_, PyAny>>,
    associated: Option<&Bound<'_, PyAny>>,
) -> PyResult<Rows> {
    let arguments = Arguments::new(algorithm, keys, nonces, data, offsets, associated, TAG)?;
    Ok(Rows::new(py.detach(|| arguments.seal())))
}

/// Checks row `i` under `keys[i]` and `nonces[i]` and decrypts it. Rows: INVALID.
#[pyfunction]
#[pyo3(signature = (algorithm, keys, nonces, data, offsets=None, *, associated=None))]
pub(crate) fn aead_open(
    py: Python<'_>,
    algorithm: &str,
    keys: &Bound<'_, PyAny>,
    nonces: &Bound<'_, PyAny>,
    data: &Bound<'_, PyAny>,
    offsets: Option<&Bound<'_, PyAny>>,
    associated: Option<&Bound<'_, PyAny>>,
) -> PyResult<Rows> {
    let arguments = Arguments::new(algorithm, keys, nonces, data, offsets, associated, 0)?;
    Ok(Rows::new(py.detach(|| arguments.open())))
}
