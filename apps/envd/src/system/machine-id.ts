import { readFileSync } from 'node:fs';
import { errnoOf } from '../errors.ts';
import { overwriteFile } from './overwrite-file.ts';

/** machine-id(5). D-Bus has its own in /var/lib/dbus, which is a link to this one where it is there at all. */
const PATH = '/etc/machine-id';

/** Makes the guest another machine than the one whose memory and disk it began with. */
export function writeMachineId(id: string, path: string = PATH): void {
  const text = `${id}\n`;
  try {
    if (readFileSync(path, 'utf8') === text) return;
  } catch (error) {
    if (errnoOf(error) !== 'ENOENT') throw error;
  }
  overwriteFile(path, text);
}
