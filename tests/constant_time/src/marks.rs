//! Marking bytes as secret: undefined, as memcheck and MSan know memory. Both follow what is computed from it and report a
//! branch or an address that depends on it.

/// Bytes of which something is undefined, and all of them.
pub fn tainted(bytes: &[u8]) -> usize {
    let mut bits = vec![0; bytes.len()];
    imp::undefined(bytes, &mut bits);
    bits.iter().filter(|&&bits| bits != 0).count()
}

/// The items are secret from here on.
pub fn secret<T: Copy>(items: &mut [T]) {
    imp::mark(items.as_mut_ptr().cast(), size_of_val(items));
}

/// The items are public from here on.
pub fn reveal<T: Copy>(items: &mut [T]) {
    imp::unmark(items.as_mut_ptr().cast(), size_of_val(items));
}

/// How the lanes tell what becomes public.
pub fn told(at: *mut u8, len: usize) {
    imp::unmark(at, len);
}

pub use imp::{HARNESS, errors, is_here};

/// memcheck, by client requests: an instruction sequence that does nothing elsewhere and that Valgrind knows.
#[cfg(not(interlane_msan))]
mod imp {
    use std::arch::asm;

    pub const HARNESS: &str = "memcheck";

    const RUNNING_ON_VALGRIND: u64 = 0x1001;
    const COUNT_ERRORS: u64 = 0x1201;
    const MAKE_MEM_UNDEFINED: u64 = 0x4d43_0001;
    const MAKE_MEM_DEFINED: u64 = 0x4d43_0002;
    const GET_VBITS: u64 = 0x4d43_0008;

    fn request(number: u64, a: u64, b: u64, c: u64) -> u64 {
        let arguments = [number, a, b, c, 0, 0];
        let mut result: u64 = 0;
        // SAFETY: four rotations of 128 bits in all and an exchange of a register with itself; Valgrind reads the arguments.
        unsafe {
            asm!(
                "rol rdi, 3", "rol rdi, 13", "rol rdi, 61", "rol rdi, 51", "xchg rbx, rbx",
                inout("rdx") result, in("rax") arguments.as_ptr(), options(nostack)
            );
        }
        result
    }

    /// Whether the harness is there.
    pub fn is_here() -> bool {
        request(RUNNING_ON_VALGRIND, 0, 0, 0) != 0
    }

    /// How often it has reported.
    pub fn errors() -> u64 {
        request(COUNT_ERRORS, 0, 0, 0)
    }

    pub fn mark(at: *mut u8, len: usize) {
        request(MAKE_MEM_UNDEFINED, at as u64, len as u64, 0);
    }

    pub fn unmark(at: *mut u8, len: usize) {
        request(MAKE_MEM_DEFINED, at as u64, len as u64, 0);
    }

    pub fn undefined(bytes: &[u8], bits: &mut [u8]) {
        let done = request(GET_VBITS, bytes.as_ptr() as u64, bits.as_mut_ptr() as u64, bytes.len() as u64);
        assert_eq!(done, 1, "memcheck knows these bytes");
    }
}

/// MSan, by its runtime. The standard library is not built with it, so only memory that is marked here may count as
/// undefined: that which is allocated or freed does not (`MSAN_OPTIONS` of run.py, and the allocator below).
#[cfg(interlane_msan)]
mod imp {
    use std::alloc::{GlobalAlloc, Layout, System};

    pub const HARNESS: &str = "msan";

    unsafe extern "C" {
        fn __msan_poison(at: *const u8, len: usize);
        fn __msan_unpoison(at: *const u8, len: usize);
        fn __msan_test_shadow(at: *const u8, len: usize) -> isize;
    }

    /// Memory may have been a secret's before.
    struct Fresh;

    #[global_allocator]
    static FRESH: Fresh = Fresh;

    // SAFETY: it is the system's allocator, and marks what that gives.
    unsafe impl GlobalAlloc for Fresh {
        unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
            // SAFETY: the caller's contract is the system's.
            let at = unsafe { System.alloc(layout) };
            unmark(at, layout.size());
            at
        }
        unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
            // SAFETY: as above.
            unsafe { System.dealloc(at, layout) }
        }
    }

    /// Whether the harness is there.
    pub fn is_here() -> bool {
        true
    }

    /// It ends the program at its first report.
    pub fn errors() -> u64 {
        0
    }

    pub fn mark(at: *mut u8, len: usize) {
        // SAFETY: memory of the caller's.
        unsafe { __msan_poison(at, len) }
    }

    pub fn unmark(at: *mut u8, len: usize) {
        // SAFETY: memory of the caller's.
        unsafe { __msan_unpoison(at, len) }
    }

    pub fn undefined(bytes: &[u8], bits: &mut [u8]) {
        for (byte, bits) in bytes.iter().zip(bits) {
            // SAFETY: one byte.
            *bits = u8::from(unsafe { __msan_test_shadow(byte, 1) } >= 0);
        }
    }
}
