//! A Makefile.

use crate::{Artifact, Generated, Plan, fill, quote};

const MAKEFILE: &str = include_str!("../templates/Makefile");

pub(crate) fn makefile(plan: &Plan) -> Generated {
    let only = match plan.sources.as_slice() {
        [source] => source.name.as_str(),
        _ => "",
    };
    let all = if plan.sources.is_empty() {
        ""
    } else {
        " --all"
    };
    let command = quote::makefile(&plan.shell_command());
    let source = quote::makefile(&quote::shell(only));
    let (Some(command), Some(source)) = (command, source) else {
        return Generated {
            files: Vec::new(),
            notes: vec!["a Makefile cannot say a name with a line end".to_owned()],
        };
    };
    let values = [
        ("COMMAND", command.as_str()),
        ("ALL", all),
        ("SOURCE", &source),
    ];
    let text = fill(MAKEFILE, &values);
    Generated {
        files: vec![Artifact::new("Makefile", text)],
        notes: Vec::new(),
    }
}
