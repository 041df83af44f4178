//! Seeds between their files in `seeds/`, which are kept, and directories with a file a seed, which the fuzzer works with:
//! `seeds unpack DIR` makes DIR/TARGET/… of `seeds/TARGET.txt`, `seeds pack DIR` writes them back, sorted by length.

use std::error::Error;
use std::path::Path;

use bricklayer_frontend::fuzz::{ALL, read_seeds, write_seeds};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [action, directory] = &arguments[..] else { return Err("usage: seeds pack|unpack DIR".into()) };
    for (target, _) in ALL {
        let kept = Path::new(env!("CARGO_MANIFEST_DIR")).join("seeds").join(format!("{target}.txt"));
        let corpus = Path::new(directory).join(target);
        match action.as_str() {
            "unpack" => {
                std::fs::create_dir_all(&corpus)?;
                for (number, seed) in read_seeds(&std::fs::read_to_string(&kept)?).iter().enumerate() {
                    std::fs::write(corpus.join(format!("{number:04}")), seed)?;
                }
            }
            "pack" => {
                let mut seeds = Vec::new();
                for entry in std::fs::read_dir(&corpus)? {
                    seeds.push(std::fs::read(entry?.path())?);
                }
                seeds.sort_by(|a, b| (a.len(), a).cmp(&(b.len(), b)));
                seeds.dedup();
                std::fs::write(&kept, write_seeds(&seeds))?;
            }
            other => return Err(format!("unknown action {other}").into()),
        }
    }
    Ok(())
}
