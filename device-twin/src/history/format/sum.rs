//! The checksum of what is on the disk: CRC-32 (IEEE 802.3, reflected), which sees every burst of up to 32 bits.
//!
//! It tells what a disk lost or tore; nobody can write between the records.

/// Where a record stands: in which file, and after which record. Its sum is of this too, so that no record counts in
/// another file, and none that does not follow from what is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Chain {
    file: u32,
    before: u32,
}

impl Chain {
    /// The beginning of the file that these bytes name.
    pub(crate) fn new(file: &[u8]) -> Self {
        Self { file: sum(0, file), before: 0 }
    }

    /// The sum that `parts`, in one, have here.
    pub(super) fn sum(&self, parts: &[&[u8]]) -> u32 {
        parts.iter().fold(self.file ^ self.before, |before, part| sum(before, part))
    }

    /// After a record that says it has this sum, be it so or not: what follows is told all the same.
    pub(super) fn after(self, sum: u32) -> Self {
        Self { before: sum, ..self }
    }
}

/// The sum of `bytes` that follow what has the sum `before`.
pub(super) fn sum(before: u32, bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!before, |crc, byte| (crc >> 8) ^ TABLE[usize::from(crc as u8 ^ byte)])
}

const TABLE: [u32; 256] = table();

const fn table() -> [u32; 256] {
    let mut table = [0; 256];
    let mut at = 0;
    while at < 256 {
        table[at] = entry(at as u32);
        at += 1;
    }
    table
}

const fn entry(byte: u32) -> u32 {
    const POLYNOMIAL: u32 = 0xedb8_8320;
    let (mut crc, mut bit) = (byte, 0);
    while bit < 8 {
        crc = if crc & 1 == 1 { (crc >> 1) ^ POLYNOMIAL } else { crc >> 1 };
        bit += 1;
    }
    crc
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_the_standards_sum_and_goes_on_from_the_one_before() {
        assert_eq!(sum(0, b"123456789"), 0xcbf4_3926); // the check value of CRC-32/ISO-HDLC
        assert_eq!(sum(sum(0, b"1234"), b"56789"), 0xcbf4_3926);
    }
}
