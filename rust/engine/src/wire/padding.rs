//! The two paddings: PKCS#7 of the cipher, and WhatsApp's of the message inside it.

use interlane_lanes::public;

/// Whether WhatsApp's message padding is added and removed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum MessagePadding {
    Off,
    On,
}

impl MessagePadding {
    /// How many bytes (each equal to the count) follow a plaintext: 1–15, spread by a byte that no one can foresee.
    pub(crate) fn count(self, spread: u8) -> usize {
        match (self, spread & 0x0f) {
            (Self::Off, _) => 0,
            (Self::On, 0) => 15,
            (Self::On, nibble) => usize::from(nibble),
        }
    }
}

/// PKCS#7 (RFC 5652 §6.3): 1–16 bytes, each equal to the count.
pub(crate) fn block_padding(plaintext_len: usize) -> usize {
    16 - plaintext_len % 16
}

/// The length without PKCS#7 padding; `None` where it is not one. Looks at every padding byte, whatever it finds.
pub(crate) fn strip_block_padding(padded: &[u8]) -> Option<usize> {
    strip(padded)
}

/// The length without WhatsApp's padding, 1–16 bytes: deployed senders emit 16, too.
pub(crate) fn strip_message_padding(padded: &[u8]) -> Option<usize> {
    strip(padded)
}

fn strip(padded: &[u8]) -> Option<usize> {
    // Padding is looked at in frames that are authentic: their senders' lengths are the callers', and public.
    let count = public(*padded.last()?);
    let rest = padded.len().checked_sub(usize::from(count)).filter(|_| (1..=16).contains(&count))?;
    let differing = padded[rest..].iter().fold(0, |sum, &byte| sum | (byte ^ count));
    public(differing == 0).then_some(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn padding_is_removed_only_where_it_is_padding() {
        assert_eq!(strip(&[1]), Some(0));
        assert_eq!(strip(&[16; 16]), Some(0));
        assert_eq!(strip(&[9, 2, 2]), Some(1));
        for bad in [&[][..], &[0], &[17; 17], &[2], &[3, 2, 3], &[1, 2, 3, 3]] {
            assert_eq!(strip(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn message_padding_is_1_to_15() {
        let counts: Vec<usize> = (0..=255).map(|spread| MessagePadding::On.count(spread)).collect();
        assert_eq!((counts.iter().min(), counts.iter().max()), (Some(&1), Some(&15)));
        assert_eq!(MessagePadding::Off.count(7), 0);
    }
}
