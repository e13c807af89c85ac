//! How both sides print a number of bytes.

use std::fmt;

/// A number of bytes: bytes below 1 KiB, else KiB or MiB with one decimal place, rounded down, so that free space is never
/// shown larger than it is. Integers only: formatting an `f64` takes 15 kB of the agent's file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size(pub u64);

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (shift, unit) = match self.0 {
            1 => return f.write_str("1 byte"),
            0..0x400 => return write!(f, "{} bytes", self.0),
            0x400..0x10_0000 => (10, "KiB"),
            _ => (20, "MiB"),
        };
        let whole = self.0 >> shift;
        // The remainder has at most 20 bits.
        let tenth = ((self.0 & ((1 << shift) - 1)) * 10) >> shift;
        write!(f, "{whole}.{tenth} {unit}")
    }
}

#[cfg(test)]
mod tests {
    use super::Size;

    #[test]
    fn sizes_have_binary_units() {
        for (bytes, text) in [
            (0, "0 bytes"),
            (1, "1 byte"),
            (1023, "1023 bytes"),
            (1024, "1.0 KiB"),
            (1_048_575, "1023.9 KiB"),
            (1_048_576, "1.0 MiB"),
            (41_000_000, "39.1 MiB"),
            (u64::MAX, "17592186044415.9 MiB"),
        ] {
            assert_eq!(Size(bytes).to_string(), text);
        }
    }
}
