//! What is taken from the machine: the time, and random bytes. Tests put others in their place.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use crate::error::Error;

/// Seconds since 1970.
pub(crate) fn now() -> u64 {
    #[cfg(test)]
    if let Some(now) = simulated::now() {
        return now;
    }
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// A moment by a clock that nobody sets.
pub(crate) fn moment() -> Instant {
    #[cfg(test)]
    if let Some(moment) = simulated::moment() {
        return moment;
    }
    Instant::now()
}

/// Fills `bytes` with the operating system's randomness.
pub(crate) fn random(bytes: &mut [u8]) -> Result<(), Error> {
    #[cfg(test)]
    if simulated::random(bytes) {
        return Ok(());
    }
    getrandom::fill(bytes).map_err(|error| Error::Store(format!("the operating system gives no random bytes: {error}")))
}

/// A machine of one thread's own: its time goes as told, and what is random in it follows from a seed.
#[cfg(test)]
pub(crate) mod simulated {
    use std::cell::RefCell;
    use std::time::{Duration, Instant};

    use interlane_crash::Dice;

    struct State {
        dice: Dice,
        /// Seconds since 1970, as the machine's clock shows them.
        now: u64,
        began: Instant,
        passed: Duration,
    }

    thread_local! {
        static STATE: RefCell<Option<State>> = const { RefCell::new(None) };
    }

    fn with<T>(look: impl FnOnce(&mut State) -> T) -> Option<T> {
        STATE.with_borrow_mut(|state| state.as_mut().map(look))
    }

    pub(super) fn now() -> Option<u64> {
        with(|state| state.now)
    }

    pub(super) fn moment() -> Option<Instant> {
        with(|state| state.began + state.passed)
    }

    pub(super) fn random(bytes: &mut [u8]) -> bool {
        let fill = |state: &mut State| {
            for part in bytes.chunks_mut(8) {
                part.copy_from_slice(&state.dice.draw().to_le_bytes()[..part.len()]);
            }
        };
        with(fill).is_some()
    }

    /// Whether this thread's machine is simulated.
    pub(crate) fn is_on() -> bool {
        with(|_| ()).is_some()
    }

    /// While this lives, this thread has a machine of its own.
    pub(crate) struct Machine(());

    impl Machine {
        pub(crate) fn start(seed: u64) -> Self {
            let state = State { dice: Dice(seed), now: 1_800_000_000, began: Instant::now(), passed: Duration::ZERO };
            STATE.with_borrow_mut(|machine| *machine = Some(state));
            Self(())
        }

        /// Seconds since 1970.
        pub(crate) fn now(&self) -> u64 {
            super::now()
        }

        /// Time passes.
        pub(crate) fn pass(&self, time: Duration) {
            with(|state| {
                state.passed += time;
                state.now += time.as_secs();
            });
        }

        /// Somebody sets the clock: it may go back.
        pub(crate) fn set_clock(&self, by_seconds: i64) {
            with(|state| state.now = state.now.saturating_add_signed(by_seconds));
        }
    }

    impl Drop for Machine {
        fn drop(&mut self) {
            STATE.with_borrow_mut(|machine| *machine = None);
        }
    }
}
