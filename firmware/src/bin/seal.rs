//! seal IMAGE: writes the SHA-256 of a firmware's flash contents behind them, where the chip finds it when it tests itself.

use object::{Object, ObjectSection};
use sha2::{Digest, Sha256};
use std::error::Error;
use std::{env, fs};

/// Holds the hash; everything before it in flash is covered.
const SECTION: &str = ".program_hash";

fn main() -> Result<(), Box<dyn Error>> {
    let path = env::args().nth(1).ok_or("usage: seal IMAGE")?;
    let mut image = fs::read(&path).map_err(|e| format!("{path}: {e}"))?;
    let (at, hash) = {
        let elf = object::File::parse(&*image).map_err(|e| format!("{path}: {e}"))?;
        let section = elf.section_by_name(SECTION).ok_or(format!("{path}: has no section {SECTION}"))?;
        let (offset, size) = section.file_range().ok_or(format!("{path}: {SECTION} is empty"))?;
        if size != 32 {
            return Err(format!("{path}: {SECTION} has {size} bytes, not 32").into());
        }
        let program = program(&elf, section.address())?;
        (offset as usize, Sha256::digest(program))
    };
    image[at..at + 32].copy_from_slice(&hash);
    let temporary = format!("{path}.part");
    fs::write(&temporary, &image)?;
    fs::set_permissions(&temporary, fs::metadata(&path)?.permissions())?;
    fs::rename(&temporary, &path)?;
    println!("{path}: sealed");
    Ok(())
}

/// What flash holds from its beginning to `end`, zeros where the file has nothing: as a loader leaves it.
fn program(elf: &object::File, end: u64) -> Result<Vec<u8>, Box<dyn Error>> {
    use object::read::elf::{ElfFile32, ProgramHeader};
    let object::File::Elf32(elf): &object::File = elf else { return Err("not a 32-bit ELF file".into()) };
    let elf: &ElfFile32 = elf;
    let endian = elf.endian();
    let loaded = elf.elf_program_headers().iter().filter(|h| h.p_type(endian) == object::elf::PT_LOAD);
    let mut parts: Vec<(u64, &[u8])> = Vec::new();
    for header in loaded {
        let data = header.data(endian, elf.data()).map_err(|()| "a segment leaves the file")?;
        if !data.is_empty() && u64::from(header.p_paddr(endian)) < end {
            parts.push((header.p_paddr(endian).into(), data));
        }
    }
    let start = parts.iter().map(|(at, _)| *at).min().ok_or("nothing is loaded")?;
    let mut program = vec![0; (end - start) as usize];
    for (at, data) in parts {
        let from = (at - start) as usize;
        let len = data.len().min(program.len() - from);
        program[from..from + len].copy_from_slice(&data[..len]);
    }
    Ok(program)
}
