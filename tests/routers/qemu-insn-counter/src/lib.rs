//! A QEMU plugin that counts the instructions of its guest, block by block, in a file that the bench maps.
//!
//! **Invariants:** it changes nothing that the guest can see. A block that an exception interrupts counts as whole, which is far below
//! one in a thousand.
//!
//! The file is an array of [`Record`]; QEMU's end of the contract is `include/qemu/qemu-plugin.h`. Only calls that all
//! versions of QEMU's interface since its first have are used.

use std::ffi::{CStr, OsStr, c_char, c_int, c_uint, c_void};
use std::fs::OpenOptions;
use std::os::unix::ffi::OsStrExt;
use std::sync::atomic::{AtomicPtr, AtomicU64, Ordering::Relaxed};

mod record;

use record::{RECORDS, Record};
use rustix::mm::{MapFlags, ProtFlags, mmap};

/// The version of QEMU's interface that this is written for.
#[unsafe(no_mangle)]
#[allow(non_upper_case_globals, reason = "QEMU looks for this name")]
pub static qemu_plugin_version: c_int = 1;

type Id = u64;
type Translated = extern "C" fn(Id, *mut c_void);
type Executed = extern "C" fn(c_uint, *mut c_void);

unsafe extern "C" {
    fn qemu_plugin_register_vcpu_tb_trans_cb(id: Id, callback: Translated);
    fn qemu_plugin_register_vcpu_tb_exec_cb(
        block: *mut c_void,
        callback: Executed,
        flags: c_int,
        record: *mut c_void,
    );
    fn qemu_plugin_tb_n_insns(block: *const c_void) -> usize;
    fn qemu_plugin_tb_vaddr(block: *const c_void) -> u64;
}

/// The mapped file.
static TABLE: AtomicPtr<Record> = AtomicPtr::new(std::ptr::null_mut());

/// Called once by QEMU: `-plugin PLUGIN,counts=FILE`.
///
/// # Safety
/// As QEMU calls it: `argc` strings in `argv`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn qemu_plugin_install(
    id: Id,
    _info: *const c_void,
    argc: c_int,
    argv: *const *const c_char,
) -> c_int {
    let words = (0..usize::try_from(argc).unwrap_or(0)).map(|index| {
        // SAFETY: QEMU gives `argc` strings.
        unsafe { CStr::from_ptr(*argv.add(index)) }.to_bytes()
    });
    let Some(path) = words.filter_map(|word| word.strip_prefix(b"counts=")).next() else { return 1 };
    let Some(table) = map(OsStr::from_bytes(path)) else { return 1 };
    TABLE.store(table, Relaxed);
    // SAFETY: the identity is QEMU's own, and the callback lives as long as this library.
    unsafe { qemu_plugin_register_vcpu_tb_trans_cb(id, translated) };
    0
}

fn map(path: &OsStr) -> Option<*mut Record> {
    let file = OpenOptions::new().read(true).write(true).open(path).ok()?;
    let length = RECORDS * size_of::<Record>();
    file.set_len(length as u64).ok()?;
    let access = ProtFlags::READ | ProtFlags::WRITE;
    // SAFETY: a new mapping at a place that the kernel chooses, of a file that is this long.
    unsafe { mmap(std::ptr::null_mut(), length, access, MapFlags::SHARED, &file, 0) }.ok().map(|at| at.cast())
}

/// Called when QEMU translates a block: finds its record, and registers the count of its executions.
extern "C" fn translated(_id: Id, block: *mut c_void) {
    // SAFETY: QEMU gives a block that lives during this call.
    let (address, length) = unsafe { (qemu_plugin_tb_vaddr(block), qemu_plugin_tb_n_insns(block) as u64) };
    let table = TABLE.load(Relaxed);
    // Fibonacci hashing, with linear probing.
    let key = (address ^ length << 56).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let first = (key >> (64 - RECORDS.trailing_zeros())) as usize;
    for index in (0..RECORDS).map(|step| (first + step) % RECORDS) {
        // SAFETY: within the mapping, and of atomics only.
        let record = unsafe { &*table.add(index) };
        if record.length.load(Relaxed) == 0 {
            record.address.store(address, Relaxed);
            record.length.store(length, Relaxed);
        }
        if record.address.load(Relaxed) == address && record.length.load(Relaxed) == length {
            let record = std::ptr::from_ref(&record.executions).cast_mut().cast();
            // SAFETY: the record is mapped for as long as QEMU lives.
            unsafe { qemu_plugin_register_vcpu_tb_exec_cb(block, executed, 0, record) };
            return;
        }
    }
    // The table is full. It is several times larger than the code that a router executes.
    std::process::abort();
}

/// Called when a block is executed. A guest with one CPU has one thread, so no count is lost between the two accesses.
extern "C" fn executed(_cpu: c_uint, executions: *mut c_void) {
    // SAFETY: what `translated` gave.
    let executions = unsafe { &*executions.cast::<AtomicU64>() };
    executions.store(executions.load(Relaxed) + 1, Relaxed);
}
