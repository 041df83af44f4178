//! The system call filter as a runtime takes it (runtime-spec `config-linux.md`, "Seccomp"), made of the same table as ours.

use serde_json::{Value, json};

use super::super::seccomp::{Rule, rules_by_name};

const EPERM: u32 = 1;
const ENOSYS: u32 = 38;

/// The section for a command with these capabilities; `None` on a machine that has no table.
pub(super) fn section(capabilities: u64) -> Option<Value> {
    let architectures = match std::env::consts::ARCH {
        "x86_64" => ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"].as_slice(),
        "aarch64" => ["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"].as_slice(),
        _ => return None,
    };
    let (mut allowed, mut denied, mut calls) = (Vec::new(), Vec::new(), Vec::new());
    for (name, rule) in rules_by_name(capabilities) {
        match rule {
            Rule::Allow => allowed.push(name),
            Rule::Deny => denied.push(name),
            // the default
            Rule::Missing => {}
            Rule::Without(bits) => {
                calls.push(on(
                    name,
                    None,
                    json!({ "value": bits, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ" }),
                ));
                for bit in (0..32).map(|shift| 1u32 << shift).filter(|bit| bits & bit != 0) {
                    let set = json!({ "value": bit, "valueTwo": bit, "op": "SCMP_CMP_MASKED_EQ" });
                    calls.push(on(name, Some(EPERM), set));
                }
            }
            Rule::In(ranges) => {
                calls.extend(ranges.iter().filter_map(|range| Some(on(name, None, within(*range)?))));
                calls.extend(
                    gaps(ranges).into_iter().filter_map(|gap| Some(on(name, Some(EPERM), within(gap)?))),
                );
            }
        }
    }
    calls.insert(0, json!({ "names": allowed, "action": "SCMP_ACT_ALLOW" }));
    calls.insert(1, json!({ "names": denied, "action": "SCMP_ACT_ERRNO", "errnoRet": EPERM }));
    Some(json!({
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": ENOSYS,
        "architectures": architectures,
        "syscalls": calls,
    }))
}

/// What happens with a call whose first argument is so.
fn on(name: &str, error: Option<u32>, mut condition: Value) -> Value {
    condition["index"] = json!(0);
    match error {
        None => json!({ "names": [name], "action": "SCMP_ACT_ALLOW", "args": [condition] }),
        Some(error) => {
            json!({ "names": [name], "action": "SCMP_ACT_ERRNO", "errnoRet": error, "args": [condition] })
        }
    }
}

/// One comparison for a range. One that has both ends inside needs two, which libseccomp does not take of one argument:
/// what lies there gets the default.
fn within((first, last): (u32, u32)) -> Option<Value> {
    match (first, last) {
        (first, last) if first == last => Some(json!({ "value": first, "op": "SCMP_CMP_EQ" })),
        (0, last) => Some(json!({ "value": last, "op": "SCMP_CMP_LE" })),
        (first, u32::MAX) => Some(json!({ "value": first, "op": "SCMP_CMP_GE" })),
        _ => None,
    }
}

/// What lies between the ranges.
fn gaps(ranges: &[(u32, u32)]) -> Vec<(u32, u32)> {
    let mut gaps = Vec::new();
    let mut next = Some(0);
    for (first, last) in ranges {
        if let Some(next) = next.filter(|next| next < first) {
            gaps.push((next, first - 1));
        }
        next = last.checked_add(1);
    }
    gaps.extend(next.map(|next| (next, u32::MAX)));
    gaps
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_section_says_what_the_table_says() {
        let section = section(0).expect("a table");
        let of = |name: &str| -> Vec<String> {
            let calls = section["syscalls"].as_array().expect("a list");
            let about =
                |call: &&Value| call["names"].as_array().is_some_and(|names| names.contains(&json!(name)));
            let text = |call: &Value| {
                let args = call.get("args").map(|args| {
                    format!(" {} {}", args[0]["op"].as_str().unwrap_or_default(), args[0]["value"])
                });
                format!("{}{}", call["action"].as_str().unwrap_or_default(), args.unwrap_or_default())
            };
            calls.iter().filter(about).map(text).collect()
        };
        assert_eq!(of("read"), ["SCMP_ACT_ALLOW"]);
        assert_eq!(of("mount"), ["SCMP_ACT_ERRNO"]);
        assert_eq!(of("clone3"), Vec::<String>::new());
        assert_eq!(of("clone").len(), 8);
        let socket = [
            "ALLOW SCMP_CMP_LE 37",
            "ALLOW SCMP_CMP_EQ 39",
            "ALLOW SCMP_CMP_GE 41",
            "ERRNO SCMP_CMP_EQ 38",
            "ERRNO SCMP_CMP_EQ 40",
        ];
        assert_eq!(of("socket"), socket.map(|text| format!("SCMP_ACT_{text}")));
        assert_eq!(super::section(1 << 21).map(|with| with == section), Some(false));
    }

    #[test]
    fn gaps_are_what_ranges_leave() {
        assert_eq!(gaps(&[(0, 3), (5, 5), (9, u32::MAX)]), [(4, 4), (6, 8)]);
        assert_eq!(gaps(&[(2, 3)]), [(0, 1), (4, u32::MAX)]);
    }
}
