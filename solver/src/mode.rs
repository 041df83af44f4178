//! `--chmod`: octal and symbolic modes.
//!
//! Symbolic modes are those of POSIX `chmod` without an umask (`+x` is `a+x`), read as BSD's `setmode(3)` reads them,
//! as BuildKit does: `u=rwX,go=rX`, `g=u`, `a-w,u+s`. `X` looks at the mode before any change; `o+s` and `o+t` change
//! nothing; `=` clears setuid with `u` and setgid with `g`.

use crate::op::Mode;

/// Why a mode can't be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ModeError {
    /// Octal digits, but more than 7777.
    #[error("mode `{0}` is out of range: at most 7777")]
    Range(String),
    /// Neither octal nor symbolic.
    #[error("mode `{0}` is neither octal (0 to 7777) nor symbolic (such as `u=rwX,go=rX`)")]
    Syntax(String),
}

/// The bits that chmod knows.
const ALL: u32 = 0o7777;
const ANY_EXECUTE: u32 = 0o111;
const SETUID: u32 = 0o4000;
const SETGID: u32 = 0o2000;
const STICKY: u32 = 0o1000;

/// A symbolic mode, parsed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SymbolicMode {
    actions: Vec<Action>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operator {
    Add,
    Remove,
    Set,
}

/// One operator with what follows it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Action {
    operator: Operator,
    /// The bits that may change.
    who: u32,
    /// Fixed bits.
    bits: u32,
    /// `X`.
    execute_if: bool,
    /// Bits copied from user, group or other: how far each is shifted.
    copies: Vec<u32>,
}

/// Reads the value of `--chmod`: octal, 0 to 7777, or symbolic.
pub fn parse_flag(text: &str) -> Result<Mode, ModeError> {
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return parse_octal(text).map(Mode::Bits);
    }
    parse(text).map(|_| Mode::Symbolic(text.to_owned()))
}

/// Reads an octal mode, 0 to 7777, with any number of leading zeros.
pub fn parse_octal(text: &str) -> Result<u32, ModeError> {
    if text.is_empty() || !text.bytes().all(|byte| (b'0'..=b'7').contains(&byte)) {
        return Err(ModeError::Syntax(text.to_owned()));
    }
    let digits = text.trim_start_matches('0');
    match u32::from_str_radix(if digits.is_empty() { "0" } else { digits }, 8) {
        Ok(bits) if bits <= ALL => Ok(bits),
        _ => Err(ModeError::Range(text.to_owned())),
    }
}

/// Reads a symbolic mode.
pub fn parse(text: &str) -> Result<SymbolicMode, ModeError> {
    let bad = || ModeError::Syntax(text.to_owned());
    let mut actions = Vec::new();
    for clause in text.split(',') {
        let operators = clause.find(['+', '-', '=']).ok_or_else(bad)?;
        let (who_text, mut rest) = clause.split_at(operators);
        let mut who = 0;
        for c in who_text.chars() {
            who |= match c {
                'u' => SETUID | 0o700,
                'g' => SETGID | 0o070,
                'o' => 0o007,
                'a' => SETUID | SETGID | 0o777,
                _ => return Err(bad()),
            };
        }
        // Nothing named is everybody, sticky bit included.
        let who = if who_text.is_empty() { SETUID | SETGID | 0o777 } else { who };
        let others_only = who == 0o007;
        while let Some(c) = rest.chars().next() {
            let operator = match c {
                '+' => Operator::Add,
                '-' => Operator::Remove,
                '=' => Operator::Set,
                _ => return Err(bad()),
            };
            // The operators are one byte each.
            let after = rest.get(1..).unwrap_or_default();
            let end = after.find(['+', '-', '=']).unwrap_or(after.len());
            let (permissions, next) = after.split_at(end);
            let mut action = Action { operator, who, bits: 0, execute_if: false, copies: Vec::new() };
            for c in permissions.chars() {
                match c {
                    'r' => action.bits |= 0o444,
                    'w' => action.bits |= 0o222,
                    'x' => action.bits |= 0o111,
                    'X' => action.execute_if = true,
                    's' if others_only => {}
                    's' => action.bits |= SETUID | SETGID,
                    't' if others_only => {}
                    't' => {
                        action.bits |= STICKY;
                        action.who |= STICKY;
                    }
                    'u' => action.copies.push(6),
                    'g' => action.copies.push(3),
                    'o' => action.copies.push(0),
                    _ => return Err(bad()),
                }
            }
            actions.push(action);
            rest = next;
        }
    }
    Ok(SymbolicMode { actions })
}

impl SymbolicMode {
    /// The mode that a file of mode `mode` gets. Only the lower twelve bits are looked at and returned.
    pub fn apply(&self, mode: u32, is_dir: bool) -> u32 {
        let original = mode & ALL;
        let mut mode = original;
        for action in &self.actions {
            let mut bits = action.bits;
            if action.execute_if && (is_dir || original & ANY_EXECUTE != 0) {
                bits |= ANY_EXECUTE;
            }
            for shift in &action.copies {
                let copied = mode >> shift & 0o7;
                bits |= copied << 6 | copied << 3 | copied;
            }
            let bits = bits & action.who;
            mode = match action.operator {
                Operator::Add => mode | bits,
                Operator::Remove => mode & !bits,
                Operator::Set => mode & !action.who | bits,
            };
        }
        mode
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn symbolic_modes_change_what_they_name() {
        // mode text, before, is it a directory, after
        let cases = [
            ("u=rwX,go=rX", 0o700, false, 0o755),
            ("u=rwX,go=rX", 0o600, false, 0o644),
            ("u=rwX,go=rX", 0o750, true, 0o755),
            ("+x", 0o640, false, 0o751),
            ("a+x", 0o640, false, 0o751),
            ("g=u", 0o640, false, 0o660),
            ("a-w,u+s", 0o640, false, 0o4440),
            ("go=", 0o755, true, 0o700),
            ("o+t,ug+w", 0o750, true, 0o770),
            ("o+t,ug+w", 0o600, false, 0o620),
            ("+t", 0o755, true, 0o1755),
            ("u+t", 0o755, true, 0o1755),
            ("-t", 0o1755, true, 0o755),
            ("o-t", 0o1755, true, 0o1755),
            ("=", 0o6755, false, 0),
            ("=", 0o7755, false, 0o1000),
            ("u=rw", 0o4755, false, 0o655),
            ("g=rx", 0o6755, false, 0o4755),
            ("o=r", 0o7777, false, 0o7774),
            ("o+s", 0o755, false, 0o755),
            ("ug+s", 0o755, false, 0o6755),
            ("+s", 0o755, false, 0o6755),
            ("-X", 0o755, false, 0o644),
            ("+X", 0o644, false, 0o644),
            ("+X", 0o644, true, 0o755),
            // X looks at the mode before any change
            ("u-x,a+X", 0o100, false, 0o111),
            ("u+x,a+X", 0o000, false, 0o100),
            ("u+x-r+w", 0o400, false, 0o300),
            ("o=u-w", 0o750, false, 0o755),
            ("go=uo", 0o604, false, 0o666),
            ("g=o,o=", 0o707, false, 0o770),
            ("u+", 0o640, false, 0o640),
            ("ugo=rwx", 0, false, 0o777),
            ("uuu+r", 0, false, 0o400),
        ];
        for (text, before, is_dir, after) in cases {
            let mode = parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
            let got = mode.apply(before, is_dir);
            assert_eq!(got, after, "{text} on {before:o}: {got:o} instead of {after:o}");
        }
    }

    #[test]
    fn type_bits_are_left_out() {
        assert_eq!(parse("+x").expect("a mode").apply(0o100_644, false), 0o755);
    }

    #[test]
    fn malformed_modes_are_named() {
        for text in
            ["", "u", "rwx", "u+x,", ",u+x", "u+q", "u*x", "z+x", "u +x", "u+x,,g+x", "+\u{e9}", "17", "u=7"]
        {
            assert_eq!(parse(text), Err(ModeError::Syntax(text.to_owned())), "{text}");
        }
    }

    #[test]
    fn flags_are_octal_or_symbolic() {
        let cases = [
            ("0", Ok(Mode::Bits(0))),
            ("640", Ok(Mode::Bits(0o640))),
            ("0755", Ok(Mode::Bits(0o755))),
            ("000000000000000000000000000000755", Ok(Mode::Bits(0o755))),
            ("7777", Ok(Mode::Bits(0o7777))),
            ("17777", Err(ModeError::Range("17777".into()))),
            ("77777777777777777777777777", Err(ModeError::Range("77777777777777777777777777".into()))),
            ("888", Err(ModeError::Syntax("888".into()))),
            ("", Err(ModeError::Syntax(String::new()))),
            ("+755", Err(ModeError::Syntax("+755".into()))),
            ("u+x", Ok(Mode::Symbolic("u+x".into()))),
        ];
        for (text, expected) in cases {
            assert_eq!(parse_flag(text), expected, "{text}");
        }
    }
}
