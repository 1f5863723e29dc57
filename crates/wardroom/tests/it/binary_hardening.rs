//! The shipped binary is position independent (ASLR) and has full RELRO: it parses untrusted input.

use wardroom_testing::server::program;

/// Values of the ELF specification, for 64-bit little-endian files.
const ET_DYN: u16 = 3;
const PT_DYNAMIC: u32 = 2;
const PT_GNU_RELRO: u32 = 0x6474_e552;
const DT_NULL: u64 = 0;
const DT_FLAGS: u64 = 30;
const DT_FLAGS_1: u64 = 0x6fff_fffb;
const DF_BIND_NOW: u64 = 8;
const DF_1_NOW: u64 = 1;
const DF_1_PIE: u64 = 0x0800_0000;

/// The parts of an ELF file that determine how it is loaded.
#[derive(Debug, Default)]
struct ElfFlags {
    file_type: u16,
    has_relro: bool,
    flags: u64,
    flags_1: u64,
}

impl ElfFlags {
    fn parse(file: &[u8]) -> Self {
        assert_eq!(&file[..6], b"\x7fELF\x02\x01", "not a 64-bit little-endian ELF file");
        let mut elf = Self { file_type: uint(file, 16, 2) as u16, ..Self::default() };
        let [table, entry_size, entries] =
            [(32, 8), (54, 2), (56, 2)].map(|(offset, size)| uint(file, offset, size) as usize);
        for header in (0..entries).map(|index| table + index * entry_size) {
            match uint(file, header, 4) as u32 {
                PT_GNU_RELRO => elf.has_relro = true,
                PT_DYNAMIC => elf.read_dynamic(file, uint(file, header + 8, 8) as usize),
                _ => {}
            }
        }
        elf
    }

    /// Reads the dynamic section: pairs of tag and value.
    fn read_dynamic(&mut self, file: &[u8], start: usize) {
        for offset in (start..).step_by(16) {
            let value = uint(file, offset + 8, 8);
            match uint(file, offset, 8) {
                DT_NULL => return,
                DT_FLAGS => self.flags = value,
                DT_FLAGS_1 => self.flags_1 = value,
                _ => {}
            }
        }
    }
}

fn uint(file: &[u8], offset: usize, size: usize) -> u64 {
    let mut bytes = [0; 8];
    bytes[..size].copy_from_slice(&file[offset..offset + size]);
    u64::from_le_bytes(bytes)
}

#[test]
fn binary_is_position_independent_with_full_relro() {
    let elf = ElfFlags::parse(&std::fs::read(program("WARDROOM_BIN")).unwrap());
    assert_eq!(elf.file_type, ET_DYN, "the binary has a fixed load address: {elf:x?}");
    assert!(elf.flags_1 & DF_1_PIE != 0, "the binary is not marked as PIE: {elf:x?}");
    assert!(elf.has_relro, "PT_GNU_RELRO is missing");
    assert!(elf.flags & DF_BIND_NOW != 0 || elf.flags_1 & DF_1_NOW != 0, "symbols are bound lazily: {elf:x?}");
}
