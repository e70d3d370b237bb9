import { mkdir, readdir, readlink, rm, stat, unlink, utimes, writeFile } from 'node:fs/promises';
import { basename, join } from 'node:path';
import type { WrennDir } from '@wrenn/config/wrenn-dir';
import { checkImageName, type GuestImage, readImage } from '@wrenn/guest-image/catalog';
import { swapLink } from '@wrenn/guest-image/durable-files';
import { publishImage, WrongContentError } from '@wrenn/guest-image/image-store';
import { WrennError } from '@wrenn/protocol/errors';
import type { Logger } from 'pino';
import { asHostDiskFull } from '../disk/disk-full.ts';
import type { FetchedCopy } from '../objects/fetched-space.ts';
import { type ObjectStore, storeFailed } from '../objects/object-store.ts';
import { fetchStoredImage, findStoredImage, storeImage } from '../objects/stored-image.ts';
import { rejectOnAbort } from '../processes/reject-on-abort.ts';

/** All of it goes over a line that others use too. */
const FETCH_TIMEOUT_MS = 1_800_000;
/** What a fetch that was cut off left is gone on with until then. */
const KEEP_PARTIAL_MS = 86_400_000;
/** Beside an image: it came from another host. Its time is that of the last use. */
const MARKER = 'fetched';

export interface ImageExchangeOptions {
  readonly dir: WrennDir;
  readonly objects: ObjectStore;
  /** Makes room on the disk for what comes from other hosts. @throws WrennError host_disk_full */
  readonly makeRoomForFetched: (bytes: number) => Promise<void>;
  readonly log: Logger;
}

/** Gives images of this host to others through the object store, and takes theirs. */
export class ImageExchange implements AsyncDisposable {
  readonly #options: ImageExchangeOptions;
  /** By name and content. */
  readonly #fetching = new Map<string, Promise<GuestImage>>();
  readonly #closed = new AbortController();

  constructor(options: ImageExchangeOptions) {
    this.#options = options;
  }

  /**
   * Makes sure that an image is in the object store.
   *
   * @throws WrennError template_not_found, object_store_failed
   */
  async publish(name: string, signal: AbortSignal): Promise<GuestImage> {
    const { dir, objects } = this.#options;
    const image = await readImage(dir, name);
    await storeImage(objects, image, AbortSignal.any([signal, this.#closed.signal]));
    return image;
  }

  /**
   * The image of that name, fetched where this host has none; one that it has stays, whatever its content. Callers that
   * come while it is being fetched wait for the same one, and when they leave it goes on.
   *
   * @throws WrennError object_store_failed, host_disk_full; the signal's reason
   */
  async get(name: string, sha256: string, signal: AbortSignal): Promise<GuestImage> {
    const { dir } = this.#options;
    const found = await readImage(dir, name).catch(ignoreNotFound);
    if (found) return found;
    const key = `${name}@${sha256}`;
    let fetching = this.#fetching.get(key);
    if (!fetching) {
      fetching = this.#fetch(name, sha256).finally(() => this.#fetching.delete(key));
      this.#fetching.set(key, fetching);
    }
    return rejectOnAbort(fetching, signal);
  }

  /** An image is about to be used: of the fetched ones those go first that were not used for longest. */
  async touch({ rootfsPath }: GuestImage): Promise<void> {
    const now = new Date();
    await utimes(join(rootfsPath, '..', MARKER), now, now).catch(ignoreMissing);
  }

  /** The images that were fetched. */
  async copies(): Promise<FetchedCopy[]> {
    const { imageStore } = this.#options.dir;
    const found: FetchedCopy[] = [];
    for (const sha256 of await names(imageStore)) {
      const folder = join(imageStore, sha256);
      const [marker, rootfs] = await Promise.all(
        [MARKER, 'rootfs.ext4'].map((file) => stat(join(folder, file)).catch(ignoreMissing)),
      );
      if (!marker || !rootfs) continue;
      const remove = () => this.#remove(sha256);
      found.push({ name: sha256, bytes: rootfs.blocks * 512, usedAtMs: marker.mtimeMs, remove });
    }
    return found;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#closed.abort(new WrennError('shutting_down'));
    await Promise.allSettled(this.#fetching.values());
  }

  get #partials(): string {
    // Hidden, so that it is no image, and on the file system of the store.
    return join(this.#options.dir.images, '.fetching');
  }

  async #fetch(name: string, sha256: string): Promise<GuestImage> {
    const { dir, log } = this.#options;
    checkImageName(name);
    const deadline = AbortSignal.timeout(FETCH_TIMEOUT_MS);
    const signal = AbortSignal.any([deadline, this.#closed.signal]);
    const started = performance.now();
    try {
      const isThere = await stat(join(dir.imageStore, sha256, 'manifest.json')).catch(ignoreMissing);
      // Another name has the same bytes.
      if (isThere) await swapLink(dir.image(name), join('store', sha256));
      else await this.#download(name, sha256, signal);
    } catch (error) {
      if (deadline.aborted) throw storeFailed('a template did not arrive within half an hour', error);
      throw asHostDiskFull(error) ?? error;
    }
    log.info({ template: name, sha256, durationMs: Math.round(performance.now() - started) }, 'template fetched');
    return readImage(dir, name);
  }

  async #download(name: string, sha256: string, signal: AbortSignal): Promise<void> {
    const { dir, objects, makeRoomForFetched } = this.#options;
    const image = await findStoredImage(objects, sha256, signal);
    await mkdir(dir.imageStore, { recursive: true });
    await this.#removeOldPartials(sha256);
    await makeRoomForFetched(image.dataBytes);
    const folder = join(this.#partials, sha256);
    await mkdir(folder, { recursive: true, mode: 0o700 });
    await fetchStoredImage(objects, image, folder, signal);
    await writeFile(join(folder, MARKER), '');
    const { sha256: _, sizeBytes, format, createdAt, ...description } = image.manifest;
    try {
      await publishImage({
        ...{ wrennDir: dir, folder, sizeBytes, expectedSha256: sha256, signal },
        description: { ...description, name },
      });
    } catch (error) {
      if (!(error instanceof WrongContentError)) throw error;
      await rm(folder, { recursive: true, force: true });
      throw storeFailed('it gave back another template than it was given', error);
    }
  }

  async #removeOldPartials(wanted: string): Promise<void> {
    for (const name of await names(this.#partials)) {
      const folder = join(this.#partials, name);
      const { mtimeMs } = (await stat(join(folder, 'rootfs.ext4')).catch(ignoreMissing)) ?? { mtimeMs: 0 };
      const isFetched = [...this.#fetching.keys()].some((key) => key.endsWith(`@${name}`));
      if (name === wanted || isFetched || Date.now() - mtimeMs < KEEP_PARTIAL_MS) continue;
      await rm(folder, { recursive: true, force: true });
    }
  }

  /** Its names first: nobody starts from half an image. VMs that it is under keep it by links of their own. */
  async #remove(sha256: string): Promise<void> {
    const { dir } = this.#options;
    for (const name of await names(dir.images)) {
      const target = await readlink(join(dir.images, name)).catch(ignoreNoLink);
      if (target !== undefined && basename(target) === sha256) await unlink(join(dir.images, name));
    }
    await rm(join(dir.imageStore, sha256), { recursive: true, force: true });
  }
}

async function names(folder: string): Promise<string[]> {
  return (await readdir(folder).catch(ignoreMissing)) ?? [];
}

function ignoreNotFound(error: unknown): undefined {
  if (!(error instanceof WrennError) || error.code !== 'template_not_found') throw error;
}

function ignoreMissing(error: NodeJS.ErrnoException): undefined {
  if (error.code !== 'ENOENT') throw error;
}

function ignoreNoLink(error: NodeJS.ErrnoException): undefined {
  if (error.code !== 'EINVAL' && error.code !== 'ENOENT') throw error;
}
