//! Physical to logical lines.

use crate::lines::Lines;
use crate::source::Source;

/// Logical lines are what joining line by line gives, every byte of them is where its span says, and they are no longer than the
/// file.
pub fn lines(data: &[u8]) {
    let source = Source::new(data);
    assert!(source.bytes() == data, "the bytes are kept");
    for escape in ['\\', '`'] {
        let mut lines = Lines::new(&source, 0, escape);
        let expected = joined(source.text(), escape);
        let mut expected = expected.iter();
        let (mut before, mut total) = (0, 0);
        while let Some(line) = lines.logical() {
            assert_eq!(Some(&line.text), expected.next());
            assert!(line.span.start >= before && line.span.end >= line.span.start);
            before = line.span.end;
            total += line.text.len();
            for (i, c) in line.text.char_indices() {
                let span = line.source_span(i, i + c.len_utf8());
                assert_eq!(source.text().get(span.start..span.end), Some(c.to_string().as_str()));
            }
            for comment in &line.comments {
                assert!(
                    comment.span.end <= line.span.start
                        && source.text()[comment.span.start..].starts_with('#')
                );
            }
            let (first, last) = source.lines(line.span);
            assert!(first >= 1 && first <= last && last as usize <= data.len() + 1);
        }
        assert_eq!(expected.next(), None);
        assert!(total <= data.len());
    }
    // a heredoc's body and its end are whole lines, and what is read never goes back
    let marker = source.text().lines().next().unwrap_or_default().trim();
    for tabs in [false, true] {
        let mut lines = Lines::new(&source, 0, '\\');
        let mut position = 0;
        while let Some(body) = lines.heredoc(marker, tabs) {
            assert!(body.content.start == position && body.content.end == body.end.start);
            let end = &source.text()[body.end.start..body.end.end];
            assert_eq!(if tabs { end.trim_start_matches('\t') } else { end }, marker);
            let rest = &source.text()[body.end.end..];
            position = body.end.end + rest.find('\n').map_or(rest.len(), |i| i + 1);
        }
    }
}

/// The same by another way: text before and after each step.
fn joined(text: &str, escape: char) -> Vec<String> {
    let mut out = Vec::new();
    let mut open: Option<String> = None;
    for line in text.split('\n') {
        let line = line.trim_end_matches('\r');
        let body = line.trim_start();
        if body.starts_with('#') || body.is_empty() {
            continue;
        }
        let line = if open.is_none() { body } else { line };
        let bare = line.trim_end_matches([' ', '\t']);
        let escapes = bare.chars().rev().take_while(|c| *c == escape).count();
        let text = open.get_or_insert_default();
        if escapes == 1 {
            text.push_str(&bare[..bare.len() - escape.len_utf8()]);
        } else {
            text.push_str(line);
            out.extend(open.take());
        }
    }
    out.extend(open);
    out.retain(|line| !line.trim().is_empty());
    out
}
