//! What texts were encrypted with: the engine notes it here where a simulation listens in the same thread.

use std::cell::RefCell;

/// A ciphertext, and the key and IV that made it.
pub(crate) struct Sealed {
    pub(crate) key: [u8; 32],
    pub(crate) iv: [u8; 16],
    pub(crate) ciphertext: Vec<u8>,
}

thread_local! {
    static HEARD: RefCell<Option<Vec<Sealed>>> = const { RefCell::new(None) };
}

/// Takes a tile of texts, encrypted.
pub(super) fn note(keys: &[[u8; 32]], ivs: &[[u8; 16]], texts: &[&mut [u8]]) {
    HEARD.with_borrow_mut(|heard| {
        if let Some(heard) = heard {
            let rows = keys.iter().zip(ivs).zip(texts);
            heard.extend(rows.map(|((&key, &iv), text)| Sealed { key, iv, ciphertext: text.to_vec() }));
        }
    });
}

/// Listens while `call` runs.
pub(crate) fn listen<T>(call: impl FnOnce() -> T) -> (T, Vec<Sealed>) {
    HEARD.set(Some(Vec::new()));
    let done = call();
    (done, HEARD.take().unwrap_or_default())
}
