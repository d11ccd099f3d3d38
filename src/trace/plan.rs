//! Where the basic blocks of a library begin: a linear sweep over each function that its unwind table names.
//!
//! A breakpoint in the middle of an instruction would change what the code does. So a function counts only if all of it
//! decodes and every direct branch into it, from wherever, goes to the start of an instruction.

use super::Error;
use gimli::{BaseAddresses, CieOrFde, EhFrame, LittleEndian, UnwindSection};
use iced_x86::{Decoder, DecoderOptions, FlowControl, Instruction, OpKind};
use object::{Object, ObjectSection, SectionKind};
use std::fs;
use std::ops::Range;
use std::path::Path;

/// The blocks of one library, as addresses relative to where it is loaded.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Plan {
    /// Ascending.
    pub blocks: Vec<u32>,
    pub functions: u32,
    pub dropped: u32,
}

/// The first bytes of a plan's file; the number changes when plans do.
const MAGIC: &[u8; 8] = b"gsplan01";

/// The plan of a library, from the cache if that has it.
pub fn of(library: &Path, cache: Option<&Path>) -> Result<Plan, Error> {
    let image = fs::read(library).map_err(|source| Error::Read { path: library.to_owned(), source })?;
    let failed = |reason: String| Error::Analysis { path: library.to_owned(), reason };
    let file = object::File::parse(&*image).map_err(|error| failed(error.to_string()))?;
    let build_id = file.build_id().ok().flatten();
    let cached = build_id.zip(cache).map(|(id, folder)| {
        let name: String = id.iter().map(|byte| format!("{byte:02x}")).collect();
        folder.join(name)
    });
    let read = cached.as_ref().and_then(|path| Plan::decode(&fs::read(path).ok()?));
    if let Some(plan) = read {
        return Ok(plan);
    }
    let plan = analyse(&file).map_err(|error| failed(error.to_string()))?;
    if let Some(path) = &cached {
        // A cache that cannot be written costs time, nothing else. Another process never sees half a file.
        let partial = path.with_extension(std::process::id().to_string());
        let _ = path.parent().map_or(Ok(()), fs::create_dir_all);
        let _ = fs::write(&partial, plan.encode()).and_then(|()| fs::rename(&partial, path));
    }
    Ok(plan)
}

impl Plan {
    fn encode(&self) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        let numbers = [self.functions, self.dropped].into_iter().chain(self.blocks.iter().copied());
        numbers.for_each(|number| bytes.extend(number.to_le_bytes()));
        bytes
    }

    fn decode(bytes: &[u8]) -> Option<Plan> {
        let (numbers, rest) = bytes.strip_prefix(MAGIC)?.as_chunks();
        let mut numbers = numbers.iter().map(|&number| u32::from_le_bytes(number));
        let plan = Plan { functions: numbers.next()?, dropped: numbers.next()?, blocks: numbers.collect() };
        (rest.is_empty() && plan.blocks.is_sorted_by(|a, b| a < b)).then_some(plan)
    }
}

/// One bit for each byte of the code.
struct Bits {
    words: Vec<u64>,
    range: Range<u64>,
}

impl Bits {
    fn new(range: Range<u64>) -> Bits {
        Bits { words: vec![0; ((range.end - range.start) / 64 + 1) as usize], range }
    }

    fn set(&mut self, address: u64) {
        let at = address - self.range.start;
        self.words[(at / 64) as usize] |= 1 << (at % 64);
    }

    fn has(&self, address: u64) -> bool {
        let at = address.wrapping_sub(self.range.start);
        self.range.contains(&address) && self.words[(at / 64) as usize] >> (at % 64) & 1 == 1
    }
}

/// What a sweep over one function finds.
#[derive(Default)]
struct Sweep {
    starts: Vec<u64>,
    leaders: Vec<u64>,
    targets: Vec<u64>,
}

fn analyse(file: &object::File) -> Result<Plan, Box<dyn std::error::Error>> {
    let sections: Vec<(Range<u64>, &[u8])> = file
        .sections()
        .filter(|section| section.kind() == SectionKind::Text)
        .map(|section| Ok((section.address()..section.address() + section.size(), section.data()?)))
        .collect::<Result<_, object::Error>>()?;
    let low = sections.iter().map(|(range, _)| range.start).min().ok_or("it has no code")?;
    let high = sections.iter().map(|(range, _)| range.end).max().unwrap_or(low);
    if high > u64::from(u32::MAX) {
        return Err("its code lies beyond 4 GiB".into());
    }
    let functions = functions(file)?;
    let mut sweeps: Vec<Option<Sweep>> = functions.iter().map(|function| sweep(function, &sections)).collect();
    let mut starts = Bits::new(low..high);
    let marked = sweeps.iter().flatten().flat_map(|sweep| &sweep.starts);
    marked.for_each(|&start| starts.set(start));
    // A branch into the middle of an instruction says that the sweep was wrong there, or that bytes have two meanings.
    let targets: Vec<u64> = sweeps.iter().flatten().flat_map(|sweep| sweep.targets.iter().copied()).collect();
    for &target in targets.iter().filter(|&&target| !starts.has(target)) {
        let after = functions.partition_point(|function| function.start <= target);
        if let Some(at) = after.checked_sub(1).filter(|&at| functions[at].contains(&target)) {
            sweeps[at] = None;
        }
    }
    let mut kept = Bits::new(low..high);
    let marked = sweeps.iter().flatten().flat_map(|sweep| &sweep.starts);
    marked.for_each(|&start| kept.set(start));
    let leaders = sweeps.iter().flatten().flat_map(|sweep| sweep.leaders.iter().copied());
    let mut blocks: Vec<u32> =
        leaders.chain(targets).filter(|&leader| kept.has(leader)).map(|leader| leader as u32).collect();
    blocks.sort_unstable();
    blocks.dedup();
    let dropped = sweeps.iter().filter(|sweep| sweep.is_none()).count();
    Ok(Plan { blocks, functions: functions.len() as u32, dropped: dropped as u32 })
}

/// The address ranges of the functions, ascending.
fn functions(file: &object::File) -> Result<Vec<Range<u64>>, Box<dyn std::error::Error>> {
    let section = file.section_by_name(".eh_frame").ok_or("it has no unwind table")?;
    let data = section.uncompressed_data()?;
    let frames = EhFrame::new(&data, LittleEndian);
    let mut bases = BaseAddresses::default().set_eh_frame(section.address());
    if let Some(text) = file.section_by_name(".text") {
        bases = bases.set_text(text.address());
    }
    let mut functions = Vec::new();
    let mut entries = frames.entries(&bases);
    while let Some(entry) = entries.next()? {
        if let CieOrFde::Fde(entry) = entry {
            let entry = entry.parse(|frames, bases, offset| frames.cie_from_offset(bases, offset))?;
            functions.push(entry.initial_address()..entry.initial_address() + entry.len());
        }
    }
    functions.retain(|function| !function.is_empty());
    functions.sort_unstable_by_key(|function| (function.start, function.end));
    functions.dedup();
    Ok(functions)
}

/// Decodes one function from its first byte to its last; none if that fails.
fn sweep(function: &Range<u64>, sections: &[(Range<u64>, &[u8])]) -> Option<Sweep> {
    let (range, bytes) =
        sections.iter().find(|(range, _)| range.contains(&function.start) && function.end <= range.end)?;
    let code = bytes.get((function.start - range.start) as usize..(function.end - range.start) as usize)?;
    let mut decoder = Decoder::with_ip(64, code, function.start, DecoderOptions::NONE);
    let mut sweep = Sweep { leaders: vec![function.start], ..Sweep::default() };
    let mut instruction = Instruction::default();
    while decoder.can_decode() {
        decoder.decode_out(&mut instruction);
        if instruction.is_invalid() {
            return None;
        }
        sweep.starts.push(instruction.ip());
        let flow = instruction.flow_control();
        let near = matches!(instruction.op0_kind(), OpKind::NearBranch16 | OpKind::NearBranch32 | OpKind::NearBranch64);
        if near && instruction.op_count() > 0 && flow != FlowControl::Next {
            sweep.targets.push(instruction.near_branch_target());
        }
        let ends = matches!(
            flow,
            FlowControl::ConditionalBranch
                | FlowControl::UnconditionalBranch
                | FlowControl::IndirectBranch
                | FlowControl::Return
        );
        if ends && function.contains(&instruction.next_ip()) {
            sweep.leaders.push(instruction.next_ip());
        }
    }
    Some(sweep)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plans_are_read_back_and_nothing_else_is() {
        let plan = Plan { blocks: vec![1, 5, 9], functions: 2, dropped: 1 };
        let bytes = plan.encode();
        assert_eq!(Plan::decode(&bytes), Some(plan));
        assert_eq!(Plan::decode(&bytes[..bytes.len() - 1]), None);
        assert_eq!(Plan::decode(b"something else"), None);
        assert_eq!(Plan::decode(&Plan { blocks: vec![5, 1], ..Plan::default() }.encode()), None);
    }
}
