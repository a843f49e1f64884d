//! The system calls that are left: memory, threads, time, and the files that are open already.
//!
//! Everything else answers EPERM, so that a library that asks for too much gets an error and not a dead process.
//! Nothing on the list takes an address or another process. Paths can be opened for reading until [`seal`].

use SeccompCmpArgLen::{Dword, Qword};
use SeccompCmpOp::{Eq, MaskedEq};
use nix::libc;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    apply_filter_all_threads,
};
use std::collections::BTreeMap;

/// Flags of openat that write or create. O_TMPFILE holds O_DIRECTORY, which is harmless: only its own bit counts.
const WRITES: u64 = (libc::O_ACCMODE | libc::O_CREAT | libc::O_TRUNC | (libc::O_TMPFILE & !libc::O_DIRECTORY)) as u64;

/// Allowed whatever their arguments are.
const PLAIN: &[i64] = &[
    // Open files, and files in memory for pictures.
    libc::SYS_read,
    libc::SYS_readv,
    libc::SYS_pread64,
    libc::SYS_write,
    libc::SYS_writev,
    libc::SYS_pwrite64,
    libc::SYS_lseek,
    libc::SYS_fstat,
    libc::SYS_close,
    libc::SYS_fcntl,
    libc::SYS_memfd_create,
    libc::SYS_ftruncate,
    libc::SYS_recvmsg,
    libc::SYS_sendmsg,
    libc::SYS_ppoll,
    // Memory. The runtime writes its own code (mprotect).
    libc::SYS_mmap,
    libc::SYS_munmap,
    libc::SYS_mprotect,
    libc::SYS_mremap,
    libc::SYS_madvise,
    libc::SYS_brk,
    // Threads.
    libc::SYS_futex,
    libc::SYS_set_robust_list,
    libc::SYS_rseq,
    libc::SYS_gettid,
    libc::SYS_getpid,
    libc::SYS_sched_yield,
    libc::SYS_sched_getaffinity,
    libc::SYS_sched_setaffinity,
    libc::SYS_sched_getparam,
    libc::SYS_sched_getscheduler,
    libc::SYS_getcpu,
    libc::SYS_membarrier,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    libc::SYS_restart_syscall,
    libc::SYS_exit,
    libc::SYS_exit_group,
    // Time, chance, facts.
    libc::SYS_nanosleep,
    libc::SYS_clock_nanosleep,
    libc::SYS_clock_gettime,
    libc::SYS_clock_getres,
    libc::SYS_gettimeofday,
    libc::SYS_getrandom,
    libc::SYS_sysinfo,
    libc::SYS_uname,
    libc::SYS_getrusage,
];

/// While models are loaded: the list, and opening files for reading.
pub fn enter() -> Result<(), String> {
    // clone3 hides its flags behind a pointer. ENOSYS makes the C library use clone, whose flags are seen. The lists
    // must let it pass, or of the two refusals the later filter's EPERM would count, which ends the attempt.
    let clone3 = BTreeMap::from([(libc::SYS_clone3, Vec::new())]);
    let no_clone3 = program(clone3, SeccompAction::Allow, SeccompAction::Errno(libc::ENOSYS as u32))?;
    let mut rules = allow_list()?;
    rules.insert(libc::SYS_openat, vec![rule(2, Dword, MaskedEq(WRITES), 0)?]);
    rules.insert(libc::SYS_newfstatat, Vec::new());
    for call in [libc::SYS_getdents64, libc::SYS_readlinkat, libc::SYS_seccomp] {
        rules.insert(call, Vec::new());
    }
    // The next filter is installed with these two; either can only take away more.
    rules.entry(libc::SYS_prctl).or_default().push(rule(0, Dword, Eq, libc::PR_SET_NO_NEW_PRIVS as u64)?);
    #[cfg(target_arch = "x86_64")]
    for call in [libc::SYS_stat, libc::SYS_readlink] {
        rules.insert(call, Vec::new());
    }
    apply_filter_all_threads(&no_clone3).map_err(|error| error.to_string())?;
    install(rules)
}

/// For good: the list alone. It leaves no system call to install another filter with.
pub fn seal() -> Result<(), String> {
    install(allow_list()?)
}

fn install(rules: BTreeMap<i64, Vec<SeccompRule>>) -> Result<(), String> {
    let program = program(rules, SeccompAction::Errno(libc::EPERM as u32), SeccompAction::Allow)?;
    apply_filter_all_threads(&program).map_err(|error| error.to_string())
}

fn rule(index: u8, length: SeccompCmpArgLen, comparison: SeccompCmpOp, value: u64) -> Result<SeccompRule, String> {
    let condition = SeccompCondition::new(index, length, comparison, value).map_err(|error| error.to_string())?;
    SeccompRule::new(vec![condition]).map_err(|error| error.to_string())
}

fn program(
    rules: BTreeMap<i64, Vec<SeccompRule>>,
    otherwise: SeccompAction,
    on_match: SeccompAction,
) -> Result<BpfProgram, String> {
    let arch = std::env::consts::ARCH.try_into().map_err(|_| "this processor is not supported".to_owned())?;
    let filter = SeccompFilter::new(rules, otherwise, on_match, arch).map_err(|error| error.to_string())?;
    BpfProgram::try_from(filter).map_err(|error| error.to_string())
}

/// The list that stays, with the calls that depend on their arguments.
fn allow_list() -> Result<BTreeMap<i64, Vec<SeccompRule>>, String> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = PLAIN.iter().map(|call| (*call, Vec::new())).collect();
    let own_pid = u64::from(std::process::id());
    let thread = libc::CLONE_THREAD as u64;
    let empty_path = libc::AT_EMPTY_PATH as u64;
    // Threads, never processes.
    rules.insert(libc::SYS_clone3, Vec::new());
    rules.insert(libc::SYS_clone, vec![rule(0, Qword, MaskedEq(thread), thread)?]);
    // Facts of open files, not of paths.
    rules.insert(libc::SYS_statx, vec![rule(2, Dword, MaskedEq(empty_path), empty_path)?]);
    rules.insert(libc::SYS_newfstatat, vec![rule(3, Dword, MaskedEq(empty_path), empty_path)?]);
    // abort() signals its own process; nobody else can be signalled.
    rules.insert(libc::SYS_tgkill, vec![rule(0, Dword, Eq, own_pid)?]);
    // Limits can be asked for, not set.
    rules.insert(libc::SYS_prlimit64, vec![rule(2, Qword, Eq, 0)?]);
    // Threads may name themselves and their memory.
    let names = [libc::PR_SET_NAME as u64, libc::PR_GET_NAME as u64, libc::PR_SET_VMA as u64];
    rules.insert(libc::SYS_prctl, names.into_iter().map(|name| rule(0, Dword, Eq, name)).collect::<Result<_, _>>()?);
    Ok(rules)
}
