//! Whether the process that left a lease behind is still there.

use std::fs;

use backup_core::lease::{ProcessMark, Processes};
use nix::errno::Errno;
use nix::sys::signal::kill;
use nix::unistd::Pid;

/// Asks the kernel.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SystemProcesses;

impl Processes for SystemProcesses {
    fn me(&self) -> ProcessMark {
        ProcessMark {
            pid: std::process::id(),
            table: table(),
            started: stat("self").map_or(0, |stat| stat.started),
        }
    }

    fn is_gone(&self, process: &ProcessMark) -> bool {
        let Ok(pid) = i32::try_from(process.pid) else {
            return false;
        };
        // 0 and what is below mean groups of processes.
        if pid < 1 || process.started == 0 || process.table.is_empty() || process.table != table() {
            return false;
        }
        // No signal is sent. `/proc` alone does not do: it may hide what is another account's.
        let is_nobody = || kill(Pid::from_raw(pid), None) == Err(Errno::ESRCH);
        if is_nobody() {
            return true;
        }
        match stat(&pid.to_string()) {
            Some(stat) => stat.ended || stat.started != process.started,
            // It may have ended just now.
            None => is_nobody(),
        }
    }
}

/// The numbers of processes mean the same within one boot and one namespace of them.
fn table() -> String {
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id");
    let namespace = fs::read_link("/proc/self/ns/pid");
    match (boot, namespace) {
        (Ok(boot), Ok(namespace)) => format!("{} {}", boot.trim(), namespace.display()),
        _ => String::new(),
    }
}

struct Stat {
    /// In ticks since the boot.
    started: u64,
    /// Whether it only waits for its parent to ask how it ended.
    ended: bool,
}

fn stat(pid: &str) -> Option<Stat> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    parse(&text)
}

/// The fields of proc(5). The second is the program's name, in which anything may stand.
fn parse(text: &str) -> Option<Stat> {
    let (_, rest) = text.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace();
    let state = fields.next()?;
    Some(Stat {
        started: fields.nth(18)?.parse().ok()?,
        ended: ["Z", "X", "x"].contains(&state),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_has_certainly_ended_is_gone() {
        let me = SystemProcesses.me();
        assert!(!me.table.is_empty() && me.started > 0, "{me:?}");
        assert!(!SystemProcesses.is_gone(&me));
        let changed = |change: fn(&mut ProcessMark)| {
            let mut mark = me.clone();
            change(&mut mark);
            SystemProcesses.is_gone(&mark)
        };
        assert!(changed(|mark| mark.started -= 1), "another of that number");
        // Above the greatest number that the kernel gives.
        assert!(changed(|mark| mark.pid = 1 << 30));
        for (what, gone) in [
            (
                "another boot",
                changed(|mark| {
                    mark.pid = 1 << 30;
                    mark.table.push('x');
                }),
            ),
            (
                "nowhere",
                changed(|mark| {
                    mark.pid = 1 << 30;
                    mark.table.clear();
                }),
            ),
            ("no number", changed(|mark| mark.pid = 0)),
            ("no number", changed(|mark| mark.pid = u32::MAX)),
            ("no time", changed(|mark| mark.started = 0)),
        ] {
            assert!(!gone, "{what}");
        }
    }

    #[test]
    fn a_name_cannot_pass_for_other_fields() {
        let rest = "1 1 1 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 4711 0 0";
        for (name, state, ended) in [
            ("a", "S", false),
            ("a) Z 9 (b", "R", false),
            ("a b", "Z", true),
        ] {
            let stat = parse(&format!("7 ({name}) {state} {rest}")).unwrap();
            assert_eq!((stat.started, stat.ended), (4711, ended), "{name}");
        }
        assert!(parse("7 (a) S 1").is_none());
    }
}
