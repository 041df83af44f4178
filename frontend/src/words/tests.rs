use std::collections::HashMap;

use proptest::prelude::*;

use super::*;

impl Variables for HashMap<&str, &str> {
    fn get(&self, name: &str) -> Option<&str> {
        HashMap::get(self, name).copied()
    }
}

fn variables() -> HashMap<&'static str, &'static str> {
    HashMap::from([
        ("v", "val"),
        ("empty", ""),
        ("c", "see"),
        ("p", "/usr/local/lib/a.tar.gz"),
        ("s", "one.two.one"),
        ("t", "a/b/c"),
        ("u", "x+y(z)"),
        ("star", "*a*b"),
        ("blanks", "two  words"),
        ("nl", "a\nb"),
    ])
}

fn expand(word: &str) -> Result<String, WordError> {
    Lexer::new('\\').expand(word, &variables(), &Budget::new()).map(|e| e.text)
}

#[test]
fn values() {
    let cases = [
        ("", ""),
        ("plain", "plain"),
        ("$v ${v}x $v/x $v.y x$v$v", "val valx val/x val.y xvalval"),
        ("\"$v\" '$v' \\$v \"\\$v\" \\\\$v", "val $v $v $v \\val"),
        ("a$ $/y \"5$ now\" $.v", "a$ $/y 5$ now $.v"),
        ("\"it's\" 'say \"hi\"' \\'x\\'", "it's say \"hi\" 'x'"),
        ("\"a\\nb\" a\\nb 'a\\nb' \"back\\\\slash\"", "a\\nb anb a\\nb back\\slash"),
        ("${v:-d} ${empty:-d} ${no:-d} ${v-d} [${empty-d}] ${no-d} [${no:-}]", "val d d val [] d []"),
        ("${no:-\"q w\"} ${no:-a:b-c/d} ${no:-\\}} ${no--}", "q w a:b-c/d } -"),
        ("${v:+w} [${empty:+w}] [${no:+w}] ${v+w} ${empty+w} [${no+w}]", "w [] [] w w []"),
        ("${v:?no} ${v?no} [${empty?no}] ${v:?}", "val val [] val"),
        ("${a:-${b:-$c}} ${a:-x${c:+y${v}z}w} ${a:-'$c'} ${a:-\\$c}", "see xyvalzw $c $c"),
        ("x$1y [$@] [$$] $$v [$?] $#z [$*] [$!] $0k [$-]", "xy [] [] v [] z [] [] k []"),
        (
            "${p#/usr} ${p#*/} ${p##*/} ${p#?} ${p##*.} ${p#/usr/*/}",
            "/local/lib/a.tar.gz usr/local/lib/a.tar.gz a.tar.gz usr/local/lib/a.tar.gz gz lib/a.tar.gz",
        ),
        (
            "${star#\\*} ${star##*\\*} ${p#} [${p##*}] ${p#.} ${p#/u?r}",
            "a*b b /usr/local/lib/a.tar.gz [] /usr/local/lib/a.tar.gz /local/lib/a.tar.gz",
        ),
        (
            "${p%.gz} ${p%.*} ${p%%.*} ${p%/*} [${p%%/*}] ${p%?}",
            "/usr/local/lib/a.tar /usr/local/lib/a.tar /usr/local/lib/a /usr/local/lib [] /usr/local/lib/a.tar.g",
        ),
        (
            "${s/one/1} ${s//one/1} ${s//./-} ${s/o*e/X} ${s//o?/_} ${s/two/} ${s/none/y}",
            "1.two.one 1.two.1 one-two-one X _e.tw__e one..one one.two.one",
        ),
        (
            "${t//\\//:} ${u/+/p} ${u//[xy]/n} ${u/(z)/Z} [${no/a/b}] ${s/$s/all}",
            "a:b:c xpy(z) x+y(z) x+yZ [] all",
        ),
        ("${v//*/x} ${v///-}", "x -v-a-l-"),
        ("${nl#*b} ${nl#*\nb}", "a\nb "),
        ("\\", ""),
        ("é${v}日 [$v日]", "éval日 []"),
    ];
    for (word, expected) in cases {
        assert_eq!(expand(word).as_deref(), Ok(expected), "{word}");
    }
}

#[test]
fn errors_say_what_is_wrong_and_where() {
    let cases = [
        ("x${}", "`${}` names no variable", 1),
        ("${:x}", "bad substitution: `${` needs a variable's name, and `:` is none", 0),
        ("${{a}}", "bad substitution: `${` needs a variable's name, and `{` is none", 0),
        ("a${v", "`${` is never closed: expected `}`", 1),
        ("${v:-a", "`${` is never closed: expected `}`", 0),
        ("${v^^}", "unknown modifier `^` in `${…}`", 0),
        ("${v:0:2}", "unknown modifier `:0` in `${…}`", 0),
        ("a'b", "unterminated quote: expected a closing '", 1),
        ("a\"b", "unterminated quote: expected a closing \"", 1),
        ("${token:?a token must be given}", "token: a token must be given", 0),
        ("${empty:?}", "empty: must not be empty, and is", 0),
        ("${no?}", "no: must be set, and is not", 0),
        (
            "${v#\\x}",
            "invalid escape `\\x` in a pattern: only `\\*`, `\\?`, `\\\\`, `\\/` and `\\}` are known",
            0,
        ),
        ("${v/a}", "`${v/…}` needs a second `/` before what replaces the pattern", 0),
    ];
    for (word, message, at) in cases {
        let error = expand(word).unwrap_err();
        assert_eq!((error.to_string().as_str(), error.at), (message, at), "{word}");
    }
}

#[test]
fn words_are_divided_after_expansion() {
    let words = |word: &str| Lexer::new('\\').expand(word, &variables(), &Budget::new()).unwrap().words;
    assert_eq!(
        words("80 $blanks \"$blanks\" 'a b' x\\ y"),
        ["80", "two", "words", "two  words", "a b", "x y"]
    );
    assert_eq!(words("  "), [""; 0]);
    assert_eq!(words("$no"), [""; 0]);
    assert_eq!(words("cat << EOF > x"), ["cat", "<< EOF", ">", "x"]);
}

#[test]
fn names_are_collected() {
    let expansion =
        Lexer::new('\\').expand("$v $no ${v} ${other:-$c} '$quoted'", &variables(), &Budget::new()).unwrap();
    assert_eq!(expansion.matched, ["v", "c"]);
    assert_eq!(expansion.unmatched, ["no", "other"]);
}

#[test]
fn unset_variables_can_be_kept() {
    let lexer = Lexer { keep_unset: true, raw_quotes: true, ..Lexer::new('\\') };
    let text = lexer
        .expand("echo $no \"${no}\" $v ${no:-x} ${no/a/b} ${no#y}", &variables(), &Budget::new())
        .unwrap()
        .text;
    assert_eq!(text, "echo $no \"${no}\" val ${no:-x} ${no/a/b} ${no#y}");
}

#[test]
fn heredocs_lose_backslashes_but_not_quotes() {
    let text =
        Lexer::heredoc().expand("$v '$v' \"\\n\" \\$v\n`x`", &variables(), &Budget::new()).unwrap().text;
    assert_eq!(text, "val 'val' \"n\" $v\n`x`");
}

#[test]
fn hostile_words_end_in_an_error() {
    let deep = "${a:-".repeat(1 << 20);
    assert_eq!(expand(&deep).unwrap_err().reason, Reason::TooDeep);
    assert_eq!(expand(&"${${${".repeat(1 << 20)).unwrap_err().reason, Reason::Modifier("{".to_owned()));
    let long = "a".repeat(1 << 16);
    let variables = HashMap::from([("long", long.as_str())]);
    let many = "$long".repeat(1 << 12);
    assert_eq!(
        Lexer::new('\\').expand(&many, &variables, &Budget::new()).unwrap_err().reason,
        Reason::TooMuch
    );
    let stars = format!("${{long//{}b/x}}", "*a".repeat(1000));
    assert_eq!(
        Lexer::new('\\').expand(&stars, &variables, &Budget::new()).unwrap_err().reason,
        Reason::TooMuch
    );
}

proptest! {
    #[test]
    fn never_panics(word in "[a-z$\\{\\}:+\\-?#%/*'\"\\\\<> \n]{0,40}", escape in prop_oneof![Just('\\'), Just('`')]) {
        for lexer in [Lexer::new(escape), Lexer::heredoc(), Lexer { keep_unset: true, raw_quotes: true, raw_escapes: true, ..Lexer::new(escape) }] {
            if let Err(error) = lexer.expand(&word, &variables(), &Budget::new()) {
                prop_assert!(word.is_char_boundary(error.at));
            }
        }
    }

    #[test]
    fn quoting_keeps_any_text(text in "[^']{0,30}") {
        prop_assert_eq!(expand(&format!("'{text}'")).unwrap(), text);
    }

    #[test]
    fn prefix_and_suffix_patterns_agree_with_a_naive_matcher(value in "[ab.]{0,8}", pattern in "[ab.*?]{0,5}") {
        let matches = |text: &str| naive(&pattern.chars().collect::<Vec<_>>(), &text.chars().collect::<Vec<_>>());
        let free = |_| Ok(());
        let ends: Vec<usize> = (0..=value.len()).filter(|&i| matches(&value[..i])).collect();
        prop_assert_eq!(pattern::without_prefix(&value, &pattern, false, &free).unwrap(), &value[ends.first().copied().unwrap_or(0)..]);
        prop_assert_eq!(pattern::without_prefix(&value, &pattern, true, &free).unwrap(), &value[ends.last().copied().unwrap_or(0)..]);
        let starts: Vec<usize> = (0..=value.len()).filter(|&i| matches(&value[i..])).collect();
        prop_assert_eq!(pattern::without_suffix(&value, &pattern, false, &free).unwrap(), &value[..starts.last().copied().unwrap_or(value.len())]);
        prop_assert_eq!(pattern::without_suffix(&value, &pattern, true, &free).unwrap(), &value[..starts.first().copied().unwrap_or(value.len())]);
    }
}

fn naive(pattern: &[char], text: &[char]) -> bool {
    match (pattern.first(), text.first()) {
        (None, None) => true,
        (Some('*'), _) => naive(&pattern[1..], text) || (!text.is_empty() && naive(pattern, &text[1..])),
        (Some('?'), Some(_)) => naive(&pattern[1..], &text[1..]),
        (Some(p), Some(t)) if p == t => naive(&pattern[1..], &text[1..]),
        _ => false,
    }
}
