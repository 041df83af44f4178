//! PAX extended headers: `LENGTH KEY=VALUE\n` records.

/// Splits the body of an extended header into its records; `None`: it is malformed.
pub(super) fn records(mut body: &[u8]) -> Option<Vec<(&[u8], &[u8])>> {
    let mut found = Vec::new();
    while !body.is_empty() {
        let blank = body.iter().take(20).position(|byte| *byte == b' ')?;
        let digits = body.get(..blank)?;
        if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
            return None;
        }
        let length: usize = std::str::from_utf8(digits).ok()?.parse().ok()?;
        let record = body.get(blank + 1..length)?;
        let record = record.strip_suffix(b"\n")?;
        let equals = record.iter().position(|byte| *byte == b'=')?;
        let (key, value) = (record.get(..equals)?, record.get(equals + 1..)?);
        if key.is_empty() || key.contains(&0) {
            return None;
        }
        found.push((key, value));
        body = body.get(length..)?;
    }
    Some(found)
}

/// Appends a record; its length counts itself.
pub(super) fn push(body: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let mut length = rest;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    body.extend_from_slice(length.to_string().as_bytes());
    body.push(b' ');
    body.extend_from_slice(key);
    body.push(b'=');
    body.extend_from_slice(value);
    body.push(b'\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_counts_its_own_length() {
        for size in [0, 1, 3, 80, 87, 88, 89, 90, 91, 985, 986, 990, 5000] {
            let mut body = Vec::new();
            push(&mut body, b"key", &vec![b'v'; size]);
            push(&mut body, b"path", b"a\nb=c");
            let parsed = records(&body).unwrap();
            assert_eq!(parsed, [(&b"key"[..], &vec![b'v'; size][..]), (b"path", b"a\nb=c")], "{size}");
        }
    }

    #[test]
    fn malformed_headers() {
        for body in [
            "x",
            "5 a=b",
            "7 a=b\n",
            "6 a=b\nz",
            "6 abc\n",
            "0 \n",
            "99999999999999999999 a=b\n",
            "-6 a=b\n",
            " a=b\n",
            "5 =b\n",
        ] {
            assert_eq!(records(body.as_bytes()), None, "{body:?}");
        }
    }
}
