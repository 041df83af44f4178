//! The rules: BuildKit's 22, by its names and words (`frontend/dockerfile/linter/ruleset.go`), and three of our own.

/// A rule.
#[derive(Debug, PartialEq, Eq)]
pub struct Rule {
    /// Its name, as `check=skip=` takes it.
    pub name: &'static str,
    /// What it wants.
    pub description: &'static str,
    /// A page about it.
    pub url: Option<&'static str>,
    /// What to do where it is broken; only our own rules say so themselves.
    pub help: Option<&'static str>,
    /// It warns only if it is asked for.
    pub experimental: bool,
}

macro_rules! rule {
    ($constant:ident, $name:literal, $page:literal, $description:literal) => {
        #[doc = $description]
        pub const $constant: Rule = Rule {
            name: $name,
            description: $description,
            url: Some(concat!("https://docs.docker.com/go/dockerfile/rule/", $page, "/")),
            help: None,
            experimental: false,
        };
    };
}

rule!(STAGE_NAME_CASING, "StageNameCasing", "stage-name-casing", "Stage names should be lowercase");
rule!(
    FROM_AS_CASING,
    "FromAsCasing",
    "from-as-casing",
    "The 'as' keyword should match the case of the 'from' keyword"
);
rule!(
    NO_EMPTY_CONTINUATION,
    "NoEmptyContinuation",
    "no-empty-continuation",
    "Empty continuation lines will become errors in a future release"
);
rule!(
    CONSISTENT_INSTRUCTION_CASING,
    "ConsistentInstructionCasing",
    "consistent-instruction-casing",
    "All commands within the Dockerfile should use the same casing (either upper or lower)"
);
rule!(DUPLICATE_STAGE_NAME, "DuplicateStageName", "duplicate-stage-name", "Stage names should be unique");
rule!(
    RESERVED_STAGE_NAME,
    "ReservedStageName",
    "reserved-stage-name",
    "Reserved words should not be used as stage names"
);
rule!(
    JSON_ARGS_RECOMMENDED,
    "JSONArgsRecommended",
    "json-args-recommended",
    "JSON arguments recommended for ENTRYPOINT/CMD to prevent unintended behavior related to OS signals"
);
rule!(
    MAINTAINER_DEPRECATED,
    "MaintainerDeprecated",
    "maintainer-deprecated",
    "The MAINTAINER instruction is deprecated, use a label instead to define an image author"
);
rule!(
    UNDEFINED_ARG_IN_FROM,
    "UndefinedArgInFrom",
    "undefined-arg-in-from",
    "FROM command must use declared ARGs"
);
rule!(
    WORKDIR_RELATIVE_PATH,
    "WorkdirRelativePath",
    "workdir-relative-path",
    "Relative workdir without an absolute workdir declared within the build can have unexpected results if the base image changes"
);
rule!(UNDEFINED_VAR, "UndefinedVar", "undefined-var", "Variables should be defined before their use");
rule!(
    MULTIPLE_INSTRUCTIONS_DISALLOWED,
    "MultipleInstructionsDisallowed",
    "multiple-instructions-disallowed",
    "Multiple instructions of the same type should not be used in the same stage"
);
rule!(
    LEGACY_KEY_VALUE_FORMAT,
    "LegacyKeyValueFormat",
    "legacy-key-value-format",
    "Legacy key/value format with whitespace separator should not be used"
);
rule!(
    REDUNDANT_TARGET_PLATFORM,
    "RedundantTargetPlatform",
    "redundant-target-platform",
    "Setting platform to predefined $TARGETPLATFORM in FROM is redundant as this is the default behavior"
);
rule!(
    SECRETS_USED_IN_ARG_OR_ENV,
    "SecretsUsedInArgOrEnv",
    "secrets-used-in-arg-or-env",
    "Sensitive data should not be used in the ARG or ENV commands"
);
rule!(
    INVALID_DEFAULT_ARG_IN_FROM,
    "InvalidDefaultArgInFrom",
    "invalid-default-arg-in-from",
    "Default value for global ARG results in an empty or invalid base image name"
);
rule!(
    FROM_PLATFORM_FLAG_CONST_DISALLOWED,
    "FromPlatformFlagConstDisallowed",
    "from-platform-flag-const-disallowed",
    "FROM --platform flag should not use a constant value"
);
rule!(
    COPY_IGNORED_FILE,
    "CopyIgnoredFile",
    "copy-ignored-file",
    "Attempting to Copy file that is excluded by .dockerignore"
);
rule!(
    EXPOSE_PROTO_CASING,
    "ExposeProtoCasing",
    "expose-proto-casing",
    "Protocol in EXPOSE instruction should be lowercase"
);
rule!(
    EXPOSE_INVALID_FORMAT,
    "ExposeInvalidFormat",
    "expose-invalid-format",
    "IP address and host-port mapping should not be used in EXPOSE instruction. This will become an error in a future release"
);

/// Base image platform does not match expected target platform
pub const INVALID_BASE_IMAGE_PLATFORM: Rule = Rule {
    name: "InvalidBaseImagePlatform",
    description: "Base image platform does not match expected target platform",
    url: None,
    help: None,
    experimental: false,
};

/// Comment for build stage or argument should follow the format: `# <arg/stage name> <description>`
pub const INVALID_DEFINITION_DESCRIPTION: Rule = Rule {
    name: "InvalidDefinitionDescription",
    description: "Comment for build stage or argument should follow the format: `# <arg/stage name> <description>`. If this is not intended to be a description comment, add an empty line or comment between the instruction and the comment.",
    url: Some("https://docs.docker.com/go/dockerfile/rule/invalid-definition-description/"),
    help: None,
    experimental: true,
};

/// Build arguments that are given should be declared
pub const UNUSED_BUILD_ARG: Rule = Rule {
    name: "UnusedBuildArg",
    description: "Build arguments that are given should be declared with ARG",
    url: None,
    help: Some("declare it with ARG where it is needed, or leave the --build-arg out"),
    experimental: false,
};

/// A shell goes on behind a failing line of a heredoc unless it is told not to
pub const HEREDOC_WITHOUT_ERREXIT: Rule = Rule {
    name: "HeredocWithoutErrexit",
    description: "A shell goes on behind a failing line of a heredoc unless it is told not to",
    url: None,
    help: Some("begin the heredoc with `set -e`, or use `SHELL [\"/bin/sh\", \"-ec\"]`"),
    experimental: false,
};

/// Several sources need a directory as their destination
pub const COPY_DESTINATION_SLASH: Rule = Rule {
    name: "CopyDestinationSlash",
    description: "The destination of several sources should end with a slash",
    url: None,
    help: Some(
        "end the destination with `/`: unless it is a directory already, every source is written to the same file",
    ),
    experimental: false,
};

/// All rules.
pub const ALL: [&Rule; 25] = [
    &STAGE_NAME_CASING,
    &FROM_AS_CASING,
    &NO_EMPTY_CONTINUATION,
    &CONSISTENT_INSTRUCTION_CASING,
    &DUPLICATE_STAGE_NAME,
    &RESERVED_STAGE_NAME,
    &JSON_ARGS_RECOMMENDED,
    &MAINTAINER_DEPRECATED,
    &UNDEFINED_ARG_IN_FROM,
    &WORKDIR_RELATIVE_PATH,
    &UNDEFINED_VAR,
    &MULTIPLE_INSTRUCTIONS_DISALLOWED,
    &LEGACY_KEY_VALUE_FORMAT,
    &INVALID_BASE_IMAGE_PLATFORM,
    &REDUNDANT_TARGET_PLATFORM,
    &SECRETS_USED_IN_ARG_OR_ENV,
    &INVALID_DEFAULT_ARG_IN_FROM,
    &FROM_PLATFORM_FLAG_CONST_DISALLOWED,
    &COPY_IGNORED_FILE,
    &EXPOSE_PROTO_CASING,
    &EXPOSE_INVALID_FORMAT,
    &INVALID_DEFINITION_DESCRIPTION,
    &UNUSED_BUILD_ARG,
    &HEREDOC_WITHOUT_ERREXIT,
    &COPY_DESTINATION_SLASH,
];
