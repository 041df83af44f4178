//! Errors as people read them.

use std::error::Error;

/// An error and all its reasons in one line, from the outermost in: `cannot copy: no space left on device`.
pub fn in_one_line(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(error) = next {
        text.push_str(": ");
        text.push_str(&error.to_string());
        next = error.source();
    }
    text
}
