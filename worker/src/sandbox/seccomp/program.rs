//! Rules to classic BPF (Linux `linux/filter.h`, `struct seccomp_data`).

use std::collections::BTreeMap;

use bricklayer_sys::spawn::FilterInstruction;

use super::table::{Rule, Section, X32_BIT};

/// The kernel takes no more instructions (`BPF_MAXINSNS`).
const MAX_INSTRUCTIONS: usize = 4096;

const LOAD: u16 = 0x20; // BPF_LD | BPF_W | BPF_ABS
const JUMP: u16 = 0x05; // BPF_JMP | BPF_JA
const JUMP_EQUAL: u16 = 0x15; // BPF_JMP | BPF_JEQ | BPF_K
const JUMP_AT_LEAST: u16 = 0x35; // BPF_JMP | BPF_JGE | BPF_K
const JUMP_ANY_BIT: u16 = 0x45; // BPF_JMP | BPF_JSET | BPF_K
const AND: u16 = 0x54; // BPF_ALU | BPF_AND | BPF_K
const RETURN: u16 = 0x06; // BPF_RET | BPF_K

const ALLOW: u32 = 0x7fff_0000;
const ERRNO: u32 = 0x0005_0000;
const EPERM: u32 = ERRNO | 1;
const ENOSYS: u32 = ERRNO | 38;

/// Offsets in `struct seccomp_data`.
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;
/// The low half of the first argument.
const ARGUMENT: u32 = if cfg!(target_endian = "little") { 16 } else { 20 };

fn instruction(code: u16, value: u32, then: u8, otherwise: u8) -> FilterInstruction {
    FilterInstruction { code, jt: then, jf: otherwise, k: value }
}

fn leave(value: u32) -> Vec<FilterInstruction> {
    vec![instruction(RETURN, value, 0, 0)]
}

/// `None` if the program would be too long for the kernel.
pub(super) fn compile(sections: &[Section]) -> Option<Vec<FilterInstruction>> {
    // Last to first, each with what follows it as its other branch.
    let mut program = leave(ENOSYS);
    for section in sections.iter().rev() {
        let mut body = vec![instruction(LOAD, NUMBER, 0, 0)];
        if section.number_bits != 0 {
            body.push(instruction(AND, !X32_BIT, 0, 0));
        }
        body.extend(tree(&ranges(&section.rules, &Rule::Missing), &rule));
        let mut head = vec![instruction(LOAD, ARCHITECTURE, 0, 0)];
        head.extend(branch(
            JUMP_EQUAL,
            section.architecture,
            &[],
            &jump_over(body.len() + number_test(section))?,
        ));
        if section.number_bits != 0 {
            head.push(instruction(LOAD, NUMBER, 0, 0));
            head.extend(branch(JUMP_ANY_BIT, section.number_bits, &[], &jump_over(body.len())?));
        }
        head.extend(body);
        head.extend(program);
        program = head;
    }
    (program.len() <= MAX_INSTRUCTIONS).then_some(program)
}

/// How many instructions tell the section from another of the same architecture.
fn number_test(section: &Section) -> usize {
    if section.number_bits == 0 { 0 } else { 4 }
}

fn jump_over(count: usize) -> Option<Vec<FilterInstruction>> {
    Some(vec![instruction(JUMP, u32::try_from(count).ok()?, 0, 0)])
}

/// Tests the accumulator: `then` if it holds, `otherwise` if not. Falls through at the end of an empty or open branch
/// only if that is the last one.
fn branch(
    test: u16,
    value: u32,
    then: &[FilterInstruction],
    otherwise: &[FilterInstruction],
) -> Vec<FilterInstruction> {
    let mut code = Vec::with_capacity(then.len() + otherwise.len() + 2);
    if then.is_empty() {
        // Holds: over `otherwise`, which is short.
        code.push(instruction(test, value, otherwise.len() as u8, 0));
        code.extend_from_slice(otherwise);
        return code;
    }
    match u8::try_from(otherwise.len()) {
        Ok(distance) => code.push(instruction(test, value, distance, 0)),
        // Conditional jumps reach 255 instructions, the other kind all.
        Err(_) => {
            code.push(instruction(test, value, 0, 1));
            code.push(instruction(JUMP, otherwise.len() as u32, 0, 0));
        }
    }
    code.extend_from_slice(otherwise);
    code.extend_from_slice(then);
    code
}

/// The first number of each range and what it means; the first is 0.
fn ranges(rules: &BTreeMap<u32, Rule>, default: &Rule) -> Vec<(u32, Rule)> {
    let mut found: Vec<(u32, Rule)> = Vec::new();
    let mut add = |start: u32, rule: Rule| match found.last() {
        Some((_, last)) if *last == rule => {}
        _ => found.push((start, rule)),
    };
    let mut next = 0;
    for (number, rule) in rules {
        if *number > next {
            add(next, *default);
        }
        add(*number, *rule);
        next = number.saturating_add(1);
    }
    if next != u32::MAX {
        add(next, *default);
    }
    found
}

fn tree(ranges: &[(u32, Rule)], leaf: &dyn Fn(Rule) -> Vec<FilterInstruction>) -> Vec<FilterInstruction> {
    match ranges {
        [] => leave(ENOSYS),
        [(_, rule)] => leaf(*rule),
        _ => {
            let (low, high) = ranges.split_at(ranges.len() / 2);
            let start = high.first().map_or(0, |(start, _)| *start);
            branch(JUMP_AT_LEAST, start, &tree(high, leaf), &tree(low, leaf))
        }
    }
}

fn rule(rule: Rule) -> Vec<FilterInstruction> {
    match rule {
        Rule::Allow => leave(ALLOW),
        Rule::Deny => leave(EPERM),
        Rule::Missing => leave(ENOSYS),
        Rule::Without(bits) => {
            let mut code = vec![instruction(LOAD, ARGUMENT, 0, 0)];
            code.extend(branch(JUMP_ANY_BIT, bits, &leave(EPERM), &leave(ALLOW)));
            code
        }
        Rule::In(allowed) => {
            let values: BTreeMap<u32, Rule> = allowed
                .iter()
                .flat_map(|(first, last)| [(*first, Rule::Allow)].into_iter().chain(after(*last)))
                .collect();
            // Not every value is listed: each entry holds up to the next one.
            let mut ranges: Vec<(u32, Rule)> = values.into_iter().collect();
            if ranges.first().is_none_or(|(first, _)| *first != 0) {
                ranges.insert(0, (0, Rule::Deny));
            }
            let mut code = vec![instruction(LOAD, ARGUMENT, 0, 0)];
            code.extend(tree(&ranges, &|rule| leave(if rule == Rule::Allow { ALLOW } else { EPERM })));
            code
        }
    }
}

fn after(last: u32) -> Option<(u32, Rule)> {
    last.checked_add(1).map(|next| (next, Rule::Deny))
}

#[cfg(test)]
mod tests {
    use super::super::table::sections;
    use super::*;

    /// Runs a program as the kernel does.
    fn run(program: &[FilterInstruction], architecture: u32, number: u32, argument: u32) -> u32 {
        let (mut at, mut accumulator) = (0usize, 0u32);
        loop {
            let FilterInstruction { code, jt, jf, k } = program[at];
            at += 1;
            let holds = match code {
                LOAD => {
                    accumulator = match k {
                        NUMBER => number,
                        ARCHITECTURE => architecture,
                        ARGUMENT => argument,
                        other => panic!("load from {other}"),
                    };
                    continue;
                }
                AND => {
                    accumulator &= k;
                    continue;
                }
                JUMP => {
                    at += k as usize;
                    continue;
                }
                RETURN => return k,
                JUMP_EQUAL => accumulator == k,
                JUMP_AT_LEAST => accumulator >= k,
                JUMP_ANY_BIT => accumulator & k != 0,
                other => panic!("instruction {other:#x}"),
            };
            at += usize::from(if holds { jt } else { jf });
        }
    }

    fn expected(rule: Option<&Rule>, argument: u32) -> u32 {
        match rule {
            Some(Rule::Allow) => ALLOW,
            Some(Rule::Deny) => EPERM,
            Some(Rule::Missing) | None => ENOSYS,
            Some(Rule::Without(bits)) => {
                if argument & bits == 0 {
                    ALLOW
                } else {
                    EPERM
                }
            }
            Some(Rule::In(ranges)) => {
                let inside = ranges.iter().any(|(first, last)| (*first..=*last).contains(&argument));
                if inside { ALLOW } else { EPERM }
            }
        }
    }

    #[test]
    fn the_program_does_what_the_table_says_on_every_machine() {
        let arguments = (0..64).chain([0x2_0000, 0x2_0008, 0x1000_0000, 0x8000_0000, u32::MAX - 1, u32::MAX]);
        let arguments: Vec<u32> = arguments.collect();
        for machine in ["x86_64", "aarch64"] {
            let sections = sections(machine, 0).expect("a table");
            let program = compile(&sections).expect("a program");
            assert!(program.len() < 2000, "{machine}: {} instructions", program.len());
            for section in &sections {
                let numbers = (0..700).chain([983_040, 983_041, 983_042, 983_045, 983_046, 0x3fff_ffff]);
                for number in numbers {
                    for argument in &arguments {
                        let verdict =
                            run(&program, section.architecture, number | section.number_bits, *argument);
                        let wanted = expected(section.rules.get(&number), *argument);
                        assert_eq!(
                            verdict, wanted,
                            "{machine} {:#x} {number} {argument}",
                            section.architecture
                        );
                    }
                }
            }
            assert_eq!(run(&program, 0x1234, 0, 0), ENOSYS);
        }
        assert_eq!(sections("z80", 0).map(|sections| sections.len()), None);
    }

    #[test]
    fn a_call_is_decided_after_few_steps() {
        // A chain of all calls would be walked at every call that the kernel does not keep the answer to.
        let sections = sections("x86_64", 0).expect("a table");
        let depth = (ranges(&sections[1].rules, &Rule::Missing).len() as f64).log2().ceil();
        assert!(depth <= 9.0, "{depth}");
    }
}
