//! The patterns of `${v#p}`, `${v%p}` and `${v/p/r}`: `*`, `?` (neither matches a newline) and `\` before `*`, `?`, `\`, `/`
//! and `}`. No brackets.

use super::Reason;

/// What matching may still cost.
type Charge<'a> = &'a dyn Fn(usize) -> Result<(), Reason>;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Token {
    Char(char),
    One,
    Many,
}

fn parse(pattern: &str) -> Result<Vec<Token>, Reason> {
    let mut tokens = Vec::new();
    let mut chars = pattern.chars();
    while let Some(c) = chars.next() {
        tokens.push(match c {
            '*' => Token::Many,
            '?' => Token::One,
            '\\' => match chars.next() {
                Some(c @ ('*' | '?' | '\\' | '/' | '}')) => Token::Char(c),
                Some(c) => return Err(Reason::PatternEscape(c.to_string())),
                None => return Err(Reason::PatternEscape(String::new())),
            },
            c => Token::Char(c),
        });
    }
    tokens.dedup_by(|a, b| *a == Token::Many && *b == Token::Many);
    Ok(tokens)
}

/// How many characters of `text`, from its first on, the pattern takes: the fewest or the most. All positions of the pattern are
/// followed at once, so the cost is the product of the lengths at most.
fn match_at(
    tokens: &[Token],
    text: &[char],
    longest: bool,
    charge: Charge<'_>,
) -> Result<Option<usize>, Reason> {
    let skip_stars = |active: &mut [bool]| {
        for i in 0..tokens.len() {
            if active[i] && tokens[i] == Token::Many {
                active[i + 1] = true;
            }
        }
    };
    let mut active = vec![false; tokens.len() + 1];
    active[0] = true;
    skip_stars(&mut active);
    let mut found = None;
    for taken in 0..=text.len() {
        charge(tokens.len() + 1)?;
        if active[tokens.len()] {
            found = Some(taken);
            if !longest {
                break;
            }
        }
        let Some(&c) = text.get(taken) else { break };
        let mut next = vec![false; tokens.len() + 1];
        for (i, token) in tokens.iter().enumerate().filter(|(i, _)| active[*i]) {
            match token {
                Token::Char(wanted) if *wanted == c => next[i + 1] = true,
                Token::One if c != '\n' => next[i + 1] = true,
                Token::Many if c != '\n' => next[i] = true,
                _ => {}
            }
        }
        skip_stars(&mut next);
        if !next.contains(&true) {
            break;
        }
        active = next;
    }
    Ok(found)
}

/// `${v#p}`, `${v##p}`.
pub(super) fn without_prefix(
    value: &str,
    pattern: &str,
    longest: bool,
    charge: Charge<'_>,
) -> Result<String, Reason> {
    let text: Vec<char> = value.chars().collect();
    let taken = match_at(&parse(pattern)?, &text, longest, charge)?.unwrap_or(0);
    Ok(text[taken..].iter().collect())
}

/// `${v%p}`, `${v%%p}`: the same, read from the end.
pub(super) fn without_suffix(
    value: &str,
    pattern: &str,
    longest: bool,
    charge: Charge<'_>,
) -> Result<String, Reason> {
    let text: Vec<char> = value.chars().rev().collect();
    let mut tokens = parse(pattern)?;
    tokens.reverse();
    let taken = match_at(&tokens, &text, longest, charge)?.unwrap_or(0);
    Ok(text[taken..].iter().rev().collect())
}

/// `${v/p/r}`, `${v//p/r}`: the leftmost match, as long as it gets.
pub(super) fn replace(
    value: &str,
    pattern: &str,
    replacement: &str,
    all: bool,
    charge: Charge<'_>,
) -> Result<String, Reason> {
    let text: Vec<char> = value.chars().collect();
    let tokens = parse(pattern)?;
    let mut out = String::with_capacity(value.len());
    let mut position = 0;
    // an empty match right behind a match is none
    let mut last_end = None;
    while position <= text.len() {
        match match_at(&tokens, &text[position..], true, charge)? {
            Some(0) if last_end == Some(position) => {}
            Some(taken) => {
                charge(replacement.len())?;
                out.push_str(replacement);
                position += taken;
                last_end = Some(position);
                if !all {
                    break;
                }
                if taken > 0 {
                    continue;
                }
            }
            None => {}
        }
        if let Some(c) = text.get(position) {
            out.push(*c);
        }
        position += 1;
    }
    out.extend(text.get(position..).unwrap_or_default());
    Ok(out)
}
