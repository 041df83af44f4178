//! `--call`: what each rule says, and how check, outline and targets print.

mod common;

use bricklayer_frontend::{Dockerfile, call};
use common::{Images, options};
use insta::assert_snapshot;

/// The warnings of a Dockerfile: rule, line, words.
fn warnings(text: &str) -> String {
    warnings_with(text, &options())
}

fn warnings_with(text: &str, options: &bricklayer_frontend::Options) -> String {
    let check = call::check(text.as_bytes(), options, &Images);
    let mut out = String::new();
    for w in check.warnings.iter().chain(&check.errors) {
        let line = w.lines.map(|(first, _)| format!(" (line {first})")).unwrap_or_default();
        out.push_str(&format!("{}: {}{line}\n", w.rule.unwrap_or("error"), w.message));
    }
    out
}

#[test]
fn stage_name_casing() {
    assert_snapshot!(warnings("FROM base AS BuilderBase\n"), @"StageNameCasing: Stage name 'BuilderBase' should be lowercase (line 1)");
}

#[test]
fn from_as_casing() {
    assert_snapshot!(warnings("FROM base as one\nfrom base AS two\nFROM base AS three\n"), @r"
    FromAsCasing: 'as' and 'FROM' keywords' casing do not match (line 1)
    ConsistentInstructionCasing: Command 'from' should match the case of the command majority (uppercase) (line 2)
    FromAsCasing: 'AS' and 'from' keywords' casing do not match (line 2)
    ");
}

#[test]
fn no_empty_continuation() {
    assert_snapshot!(warnings("FROM base\nRUN a && \\\n\n  b\n"), @"NoEmptyContinuation: Empty continuation line (line 3)");
}

#[test]
fn consistent_instruction_casing() {
    assert_snapshot!(warnings("FROM base\nRUN a\nenv a=b\nCopy x /\n"), @r"
    ConsistentInstructionCasing: Command 'env' should match the case of the command majority (uppercase) (line 3)
    ConsistentInstructionCasing: Command 'Copy' should match the case of the command majority (uppercase) (line 4)
    ");
    assert_snapshot!(warnings("from base\nrun a\nENV a=b\n"), @"ConsistentInstructionCasing: Command 'ENV' should match the case of the command majority (lowercase) (line 3)");
}

#[test]
fn duplicate_and_reserved_stage_names() {
    assert_snapshot!(warnings("FROM base AS a\nFROM base AS a\nFROM base AS scratch\nFROM base AS context\n"), @r#"
    DuplicateStageName: Duplicate stage name "a", stage names should be unique (line 2)
    ReservedStageName: Stage name should not use the same name as reserved stage "scratch" (line 3)
    ReservedStageName: Stage name should not use the same name as reserved stage "context" (line 4)
    "#);
}

#[test]
fn json_args_recommended() {
    assert_snapshot!(warnings("FROM base\nCMD run me\nENTRYPOINT run\n"), @r"
    JSONArgsRecommended: JSON arguments recommended for CMD to prevent unintended behavior related to OS signals (line 2)
    JSONArgsRecommended: JSON arguments recommended for ENTRYPOINT to prevent unintended behavior related to OS signals (line 3)
    ");
    assert_snapshot!(warnings("FROM base\nSHELL [\"/bin/bash\", \"-c\"]\nCMD run me\n"), @"");
}

#[test]
fn maintainer_deprecated() {
    assert_snapshot!(warnings("FROM base\nMAINTAINER me\n"), @"MaintainerDeprecated: Maintainer instruction is deprecated in favor of using label (line 2)");
}

#[test]
fn undefined_arg_in_from() {
    assert_snapshot!(warnings("ARG VERSION=1\nFROM base:${VERSOIN:-1}\nFROM --platform=$BULIDPLATFORM base\n"), @r"
    UndefinedArgInFrom: FROM argument 'VERSOIN' is not declared (did you mean VERSION?) (line 2)
    UndefinedArgInFrom: FROM argument 'BULIDPLATFORM' is not declared (did you mean BUILDPLATFORM?) (line 3)
    error: the platform `$BULIDPLATFORM` is empty (line 3)
    ");
}

#[test]
fn workdir_relative_path() {
    assert_snapshot!(warnings("FROM base\nWORKDIR app\nWORKDIR src\nFROM base\nWORKDIR /app\nWORKDIR src\n"), @r#"WorkdirRelativePath: Relative workdir "app" can have unexpected results if the base image changes (line 2)"#);
}

#[test]
fn undefined_var() {
    assert_snapshot!(warnings("FROM base\nARG DIR=/x\nENV PTH=$PAHT A=$PATH\nCOPY $DRI /\nRUN echo $x\nCOPY <<EOF /y\n$nope\nEOF\nLABEL z=${maybe:-x}\n"), @r"
    UndefinedVar: Usage of undefined variable '$PAHT' (did you mean $PATH?) (line 3)
    UndefinedVar: Usage of undefined variable '$DRI' (did you mean $DIR?) (line 4)
    UndefinedVar: Usage of undefined variable '$nope' (line 7)
    UndefinedVar: Usage of undefined variable '$maybe' (line 9)
    ");
}

#[test]
fn multiple_instructions_disallowed() {
    assert_snapshot!(warnings("FROM base\nCMD [\"a\"]\nCMD [\"b\"]\nENTRYPOINT [\"a\"]\nENTRYPOINT [\"b\"]\nHEALTHCHECK NONE\nHEALTHCHECK CMD x\nFROM base\nCMD [\"c\"]\n"), @r"
    MultipleInstructionsDisallowed: Multiple CMD instructions should not be used in the same stage because only the last one will be used (line 2)
    MultipleInstructionsDisallowed: Multiple ENTRYPOINT instructions should not be used in the same stage because only the last one will be used (line 4)
    MultipleInstructionsDisallowed: Multiple HEALTHCHECK instructions should not be used in the same stage because only the last one will be used (line 6)
    ");
}

#[test]
fn legacy_key_value_format() {
    assert_snapshot!(warnings("FROM base\nENV a b\nLABEL c d\n"), @r#"
    LegacyKeyValueFormat: "ENV key=value" should be used instead of legacy "ENV key value" format (line 2)
    LegacyKeyValueFormat: "LABEL key=value" should be used instead of legacy "LABEL key value" format (line 3)
    "#);
}

#[test]
fn invalid_base_image_platform() {
    assert_snapshot!(warnings("FROM arm\n"), @r#"InvalidBaseImagePlatform: Base image arm was pulled with platform "linux/arm64", expected "linux/amd64" for current build (line 1)"#);
}

#[test]
fn platforms_of_from() {
    assert_snapshot!(warnings("FROM --platform=$TARGETPLATFORM base\nFROM --platform=linux/amd64 base\nFROM --platform=linux/amd64 base AS for-amd64\nFROM --platform=$BUILDPLATFORM base\n"), @r#"
    RedundantTargetPlatform: Setting platform to predefined $TARGETPLATFORM in FROM is redundant as this is the default behavior (line 1)
    FromPlatformFlagConstDisallowed: FROM --platform flag should not use constant value "linux/amd64" (line 2)
    "#);
}

#[test]
fn secrets_used_in_arg_or_env() {
    assert_snapshot!(warnings("FROM base\nARG api_key\nENV GITHUB_TOKEN=x PUBLIC_KEY=y password_file=z keyboard=1\n"), @r#"
    SecretsUsedInArgOrEnv: Do not use ARG or ENV instructions for sensitive data (ARG "api_key") (line 2)
    SecretsUsedInArgOrEnv: Do not use ARG or ENV instructions for sensitive data (ENV "GITHUB_TOKEN") (line 3)
    "#);
}

#[test]
fn invalid_default_arg_in_from() {
    let mut options = options();
    options.build_args = vec![("TAG".to_owned(), Some("1".to_owned()))];
    assert_snapshot!(warnings_with("ARG TAG\nFROM base:$TAG\n", &options), @"InvalidDefaultArgInFrom: Default value for ARG base:$TAG results in empty or invalid base image name (line 2)");
}

#[test]
fn copy_ignored_file() {
    let mut options = options();
    options.ignore = vec!["*.log".to_owned(), "secret".to_owned()];
    assert_snapshot!(warnings_with("FROM base\nCOPY a.log ok /x/\nADD secret/key /\nCOPY . /\n", &options), @r#"
    CopyIgnoredFile: Attempting to Copy file "a.log" that is excluded by .dockerignore (line 2)
    CopyIgnoredFile: Attempting to Add file "secret/key" that is excluded by .dockerignore (line 3)
    "#);
}

#[test]
fn expose_rules() {
    assert_snapshot!(warnings("FROM base\nEXPOSE 80/TCP 127.0.0.1:80:80 443\n"), @r"
    ExposeProtoCasing: Defined protocol '80/TCP' in EXPOSE instruction should be lowercase (line 2)
    ExposeInvalidFormat: EXPOSE instruction should not define an IP address or host-port mapping, found '127.0.0.1:80:80' (line 2)
    ");
}

#[test]
fn invalid_definition_description() {
    let text = "# check=experimental=InvalidDefinitionDescription\n# bar is it\nARG foo=bar\n# foo is it\nARG foo\n# what\nARG a b\n\n# apart\n\n# base the base\nFROM base AS base\n# wrong\nFROM base AS last\n";
    assert_snapshot!(warnings(text), @r"
    InvalidDefinitionDescription: Comment for ARG should follow the format: `# foo <description>` (line 2)
    InvalidDefinitionDescription: Comment for ARG should follow the format: `# <arg_key> <description>` (line 6)
    InvalidDefinitionDescription: Comment for FROM should follow the format: `# last <description>` (line 13)
    ");
    assert_snapshot!(warnings("# what\nARG a\nFROM base\n"), @"");
}

#[test]
fn unused_build_arg() {
    let mut options = options();
    let names = ["VERSOIN", "HTTP_PROXY", "BUILDKIT_INLINE_CACHE", "TARGETARCH", "other"];
    options.build_args = names.map(|name| (name.to_owned(), Some(String::new()))).to_vec();
    assert_snapshot!(warnings_with("FROM base\nARG VERSION\n", &options), @r"
    UnusedBuildArg: the build argument `VERSOIN` is used by no ARG (did you mean VERSION?)
    UnusedBuildArg: the build argument `other` is used by no ARG
    ");
}

#[test]
fn heredoc_without_errexit() {
    let text = "FROM base\nRUN <<EOF\na\nb\nEOF\nRUN <<EOF\nset -eu\na\nb\nEOF\nRUN <<EOF\nonly one\nEOF\nRUN <<EOF\n#!/bin/sh\na\nb\nEOF\nSHELL [\"/bin/sh\", \"-ec\"]\nRUN <<EOF\na\nb\nEOF\n";
    assert_snapshot!(warnings(text), @"HeredocWithoutErrexit: RUN goes on behind a failing line of the heredoc `EOF` (line 2)");
}

#[test]
fn copy_destination_slash() {
    let text = "FROM base\nCOPY a b /dest\nCOPY a b /dest/\nCOPY a /x\nWORKDIR /app\nCOPY a b .\nADD a b /app\nADD a b /other\n";
    assert_snapshot!(warnings(text), @r"
    CopyDestinationSlash: COPY has several sources, and its destination `/dest` does not end with a slash (line 2)
    CopyDestinationSlash: ADD has several sources, and its destination `/other` does not end with a slash (line 8)
    ");
}

#[test]
fn rules_can_be_skipped() {
    assert_snapshot!(warnings("# check=skip=MaintainerDeprecated,LegacyKeyValueFormat\nFROM base\nMAINTAINER me\nENV a b\nENV token=x\n"), @r#"SecretsUsedInArgOrEnv: Do not use ARG or ENV instructions for sensitive data (ENV "token") (line 5)"#);
    assert_snapshot!(warnings("# check=skip=all\nFROM base\nMAINTAINER me\n"), @"");
    assert_snapshot!(warnings("FROM base\n# check=skip=SecretsUsedInArgOrEnv // it is none\nENV token=x\nENV token=y\n"), @r#"SecretsUsedInArgOrEnv: Do not use ARG or ENV instructions for sensitive data (ENV "token") (line 4)"#);
    assert_snapshot!(warnings("# check=slip=all\nFROM base\n"), @"error: invalid check option `slip=all` (line 1)");
}

#[test]
fn warnings_can_fail_the_build() {
    let file = Dockerfile::parse(b"# check=error=true\nFROM base\nMAINTAINER me\n").unwrap();
    let errors = bricklayer_frontend::lower(&file, &options(), &Images).unwrap_err();
    assert_eq!(errors.0[0].message, "lint violation found for rules: MaintainerDeprecated");
    let file = Dockerfile::parse(b"# check=error=true\nFROM base\n").unwrap();
    assert!(bricklayer_frontend::lower(&file, &options(), &Images).is_ok());
}

#[test]
fn a_check_without_a_target_looks_at_all_stages() {
    let text = "FROM base AS one\nENV a b\nFROM base AS two\nENV c d\n";
    assert_eq!(warnings(text).lines().count(), 2);
    let mut options = options();
    options.target = Some("one".to_owned());
    assert_eq!(warnings_with(text, &options).lines().count(), 1);
}

#[test]
fn check_prints_text_and_json() {
    let check = call::check(b"FROM base AS Base\nCMD x\n", &options(), &Images);
    assert_eq!(check.status(), 1);
    assert_snapshot!(check.to_text(false), @r"
    Check complete, 2 warnings have been found!

    warning[StageNameCasing]: Stage name 'Base' should be lowercase
     --> Dockerfile:1:14
      |
    1 | FROM base AS Base
      |              ^^^^
      |
      = note: https://docs.docker.com/go/dockerfile/rule/stage-name-casing/

    warning[JSONArgsRecommended]: JSON arguments recommended for CMD to prevent unintended behavior related to OS signals
     --> Dockerfile:2:1
      |
    2 | CMD x
      | ^^^^^
      |
      = note: https://docs.docker.com/go/dockerfile/rule/json-args-recommended/
    ");
    assert_snapshot!(check.to_json(), @r###"
    {
      "warnings": [
        {
          "ruleName": "StageNameCasing",
          "description": "Stage names should be lowercase",
          "url": "https://docs.docker.com/go/dockerfile/rule/stage-name-casing/",
          "detail": "Stage name 'Base' should be lowercase",
          "location": {
            "ranges": [
              {
                "start": {
                  "line": 1
                },
                "end": {
                  "line": 1
                }
              }
            ]
          }
        },
        {
          "ruleName": "JSONArgsRecommended",
          "description": "JSON arguments recommended for ENTRYPOINT/CMD to prevent unintended behavior related to OS signals",
          "url": "https://docs.docker.com/go/dockerfile/rule/json-args-recommended/",
          "detail": "JSON arguments recommended for CMD to prevent unintended behavior related to OS signals",
          "location": {
            "ranges": [
              {
                "start": {
                  "line": 2
                },
                "end": {
                  "line": 2
                }
              }
            ]
          }
        }
      ],
      "sources": [
        {
          "filename": "Dockerfile",
          "data": "RlJPTSBiYXNlIEFTIEJhc2UKQ01EIHgK",
          "language": "Dockerfile"
        }
      ]
    }
    "###);
    let check = call::check(b"FROM base\nCOPPY a b\n", &options(), &Images);
    assert_eq!(check.status(), 1);
    assert_snapshot!(check.to_text(false), @r"
    error: unknown instruction `COPPY`
     --> Dockerfile:2:1
      |
    2 | COPPY a b
      | ^^^^^ expected an instruction
      |
      = help: did you mean `COPY`?
    ");
    assert_snapshot!(check.to_json(), @r###"
    {
      "warnings": [],
      "sources": [
        {
          "filename": "Dockerfile",
          "data": "RlJPTSBiYXNlCkNPUFBZIGEgYgo=",
          "language": "Dockerfile"
        }
      ],
      "buildError": {
        "message": "unknown instruction `COPPY`",
        "location": {
          "ranges": [
            {
              "start": {
                "line": 2
              },
              "end": {
                "line": 2
              }
            }
          ]
        }
      }
    }
    "###);
    let check = call::check(b"FROM base\n", &options(), &Images);
    assert_eq!((check.status(), check.to_text(false).as_str()), (0, "Check complete, no warnings found.\n"));
}

const OUTLINED: &str = "# version the version\nARG version=1\nARG unused=x\nARG base=base:$version\nFROM $base AS build\n# mode how to build\nARG mode=fast\nRUN --mount=type=secret,id=token,required --mount=type=ssh x\nFROM scratch AS other\nARG nobody\n# last the result\nFROM scratch AS last\nARG version\nARG target=$version-a\nCOPY --from=build /x /\n";

#[test]
fn outline_prints_text_and_json() {
    let file = Dockerfile::parse(OUTLINED.as_bytes()).unwrap();
    let outline = call::outline(&file, &options(), &Images).unwrap();
    assert_snapshot!(outline.to_text(), @r"
    TARGET:      last
    DESCRIPTION: the result

    BUILD ARG   VALUE    DESCRIPTION
    version     1        the version
    base        base:1
    mode        fast     how to build
    target      1-a

    SECRET   REQUIRED
    token    true

    SSH       REQUIRED
    default
    ");
    let mut without_source = outline;
    without_source.sources.clear();
    assert_snapshot!(without_source.to_json(), @r###"
    {
      "name": "last",
      "description": "the result",
      "args": [
        {
          "name": "version",
          "description": "the version",
          "value": "1",
          "location": {
            "ranges": [
              {
                "start": {
                  "line": 2
                },
                "end": {
                  "line": 2
                }
              }
            ]
          }
        },
        {
          "name": "base",
          "value": "base:1",
          "location": {
            "ranges": [
              {
                "start": {
                  "line": 4
                },
                "end": {
                  "line": 4
                }
              }
            ]
          }
        },
        {
          "name": "mode",
          "description": "how to build",
          "value": "fast",
          "location": {
            "ranges": [
              {
                "start": {
                  "line": 7
                },
                "end": {
                  "line": 7
                }
              }
            ]
          }
        },
        {
          "name": "target",
          "value": "1-a",
          "location": {
            "ranges": [
              {
                "start": {
                  "line": 14
                },
                "end": {
                  "line": 14
                }
              }
            ]
          }
        }
      ],
      "secrets": [
        {
          "name": "token",
          "required": true,
          "location": {
            "ranges": [
              {
                "start": {
                  "line": 8
                },
                "end": {
                  "line": 8
                }
              }
            ]
          }
        }
      ],
      "ssh": [
        {
          "name": "default",
          "location": {
            "ranges": [
              {
                "start": {
                  "line": 8
                },
                "end": {
                  "line": 8
                }
              }
            ]
          }
        }
      ],
      "sources": []
    }
    "###);
}

#[test]
fn targets_prints_text_and_json() {
    let file = Dockerfile::parse(OUTLINED.as_bytes()).unwrap();
    let mut targets = call::targets(&file);
    targets.sources.clear();
    assert_snapshot!(targets.to_text(), @r"
    TARGET         DESCRIPTION
    build
    other
    last (default) the result
    ");
    assert_snapshot!(targets.to_json(), @r###"
    {
      "targets": [
        {
          "name": "build",
          "base": "$base",
          "location": {
            "ranges": [
              {
                "start": {
                  "line": 5
                },
                "end": {
                  "line": 5
                }
              }
            ]
          }
        },
        {
          "name": "other",
          "base": "scratch",
          "location": {
            "ranges": [
              {
                "start": {
                  "line": 9
                },
                "end": {
                  "line": 9
                }
              }
            ]
          }
        },
        {
          "name": "last",
          "default": true,
          "description": "the result",
          "base": "scratch",
          "location": {
            "ranges": [
              {
                "start": {
                  "line": 12
                },
                "end": {
                  "line": 12
                }
              }
            ]
          }
        }
      ],
      "sources": []
    }
    "###);
}
