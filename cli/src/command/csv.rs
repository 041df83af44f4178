//! Comma-separated `key=value` fields, as `-o`, `--secret` and `--ssh` take them (RFC 4180: a field in double quotes may
//! hold commas; a quote inside is doubled).

use super::usage::Usage;

/// The fields of one value.
pub(crate) fn fields(flag: &str, text: &str) -> Result<Vec<String>, Usage> {
    let broken = |why: &str| Usage::new(format!("{flag} `{text}`: {why}"));
    let mut fields = Vec::new();
    let mut chars = text.chars().peekable();
    loop {
        let mut field = String::new();
        if chars.peek() == Some(&'"') {
            chars.next();
            loop {
                match chars.next() {
                    Some('"') if chars.peek() == Some(&'"') => {
                        chars.next();
                        field.push('"');
                    }
                    Some('"') => break,
                    Some(c) => field.push(c),
                    None => return Err(broken("a quoted field has no end")),
                }
            }
            if !matches!(chars.peek(), None | Some(',')) {
                return Err(broken("expected a comma after a quoted field"));
            }
        } else {
            while let Some(c) = chars.next_if(|c| *c != ',') {
                if c == '"' {
                    return Err(broken("a quote must enclose the whole field, as in `\"name=a,b\"`"));
                }
                field.push(c);
            }
        }
        fields.push(field);
        if chars.next().is_none() {
            return Ok(fields);
        }
    }
}

/// Fields as keys (lower case) and values; `None`: a field without `=`. A key that comes twice is an error.
pub(crate) fn pairs(flag: &str, text: &str) -> Result<Vec<(String, Option<String>)>, Usage> {
    let mut pairs: Vec<(String, Option<String>)> = Vec::new();
    for field in fields(flag, text)? {
        let (key, value) = match field.split_once('=') {
            Some((key, value)) => (key, Some(value.to_owned())),
            None => (field.as_str(), None),
        };
        let key = if key.contains('.') { key.trim().to_owned() } else { key.trim().to_ascii_lowercase() };
        if key.is_empty() {
            return Err(Usage::new(format!("{flag} `{text}`: a field is empty")));
        }
        if pairs.iter().any(|(known, _)| *known == key) {
            return Err(Usage::new(format!("{flag} `{text}`: `{key}` is given twice")));
        }
        pairs.push((key, value));
    }
    Ok(pairs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_cut_at_commas_outside_quotes() {
        let cases: [(&str, &[&str]); 5] = [
            ("type=oci,dest=a.tar", &["type=oci", "dest=a.tar"]),
            ("type=image,\"name=a,b\",push=true", &["type=image", "name=a,b", "push=true"]),
            ("\"a\"\"b\"", &["a\"b"]),
            ("", &[""]),
            ("a,,b,", &["a", "", "b", ""]),
        ];
        for (text, expected) in cases {
            assert_eq!(fields("-o", text).unwrap(), expected, "{text}");
        }
        for text in ["\"a", "\"a\"b", "a\"b\""] {
            assert!(fields("-o", text).is_err(), "{text}");
        }
    }

    #[test]
    fn keys_are_lower_case_unless_they_are_names_of_annotations() {
        let got = pairs("-o", "TYPE=oci,annotation.org.Example=X=Y,flag").unwrap();
        let want = [("type", Some("oci")), ("annotation.org.Example", Some("X=Y")), ("flag", None)];
        assert_eq!(got, want.map(|(k, v)| (k.to_owned(), v.map(str::to_owned))));
        for text in ["a=1,a=2", "a=1,,b=2", "=x"] {
            assert!(pairs("-o", text).is_err(), "{text}");
        }
    }
}
