// Entry of every single executable: lays the program's files out in a folder named by their content, once, and runs
// main.mjs there. The embedded entry itself can only be CommonJS and can't load add-ons or ES modules.
const {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} = require('node:fs');
const { createRequire } = require('node:module');
const { homedir } = require('node:os');
const { basename, dirname, join } = require('node:path');
const { getAsset, getAssetKeys, getRawAsset } = require('node:sea');

const { name, contentHash, executables } = JSON.parse(getAsset('.wrenn/program.json', 'utf8'));

function cacheRoot() {
  if (process.env.WRENN_PROGRAM_CACHE) return process.env.WRENN_PROGRAM_CACHE;
  if (process.getuid() === 0) return '/var/cache/wrenn';
  return join(process.env.XDG_CACHE_HOME || join(homedir(), '.cache'), 'wrenn');
}

function layOut() {
  const root = cacheRoot();
  const target = join(root, `${name}-${contentHash}`);
  mkdirSync(root, { recursive: true, mode: 0o755 });
  if (existsSync(target)) {
    const { uid, mode } = statSync(target);
    if (uid !== process.getuid() || (mode & 0o022) !== 0) {
      throw new Error(`${target} belongs to somebody else or is writable by others; remove it and start again`);
    }
    return target;
  }
  const partial = mkdtempSync(join(root, `.${name}-`));
  for (const key of getAssetKeys()) {
    if (key.startsWith('.wrenn/')) continue;
    const path = join(partial, key);
    mkdirSync(dirname(path), { recursive: true, mode: 0o755 });
    writeFileSync(path, new Uint8Array(getRawAsset(key)), { mode: executables.includes(key) ? 0o755 : 0o644 });
  }
  // mkdtemp makes it 0700; programs that drop to another user still read from it.
  chmodSync(partial, 0o755);
  try {
    renameSync(partial, target);
  } catch (error) {
    rmSync(partial, { recursive: true, force: true });
    // Another start of the same program was quicker.
    if (!existsSync(target)) throw error;
  }
  return target;
}

const folder = layOut();
// Node puts the executable's path twice, as a script would see its own.
process.argv[1] = join(folder, 'main.mjs');
process.title = basename(process.execPath);
createRequire(join(folder, 'boot.cjs'))('./boot.cjs');
