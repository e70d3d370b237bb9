import { join } from 'node:path';

/** The layout of WRENN_DIR: the one place that knows where things are. All paths are absolute. */
export function wrennDir(root: string) {
  return {
    root,
    /** `vmlinux-{semver}` and `initramfs-{semver}` pairs; the newest semver wins. */
    kernels: join(root, 'kernels'),
    /** `images/{name}` is a link to `images/store/{sha256}`; that folder holds `rootfs.ext4` and `manifest.json`. */
    images: join(root, 'images'),
    imageStore: join(root, 'images', 'store'),
    image: (name: string) => join(root, 'images', name),
    /** Intermediate products of builds, by content; may be deleted at any time. */
    cache: join(root, 'cache'),
    /** Memory snapshots of templates, `{key}/`; key is a hash of all that the snapshot depends on. */
    templateSnapshots: join(root, 'template-snapshots'),
    /** One folder a VM that exists: journal record, overlay, sockets, console. */
    capsules: join(root, 'capsules'),
    capsule: (id: string) => join(root, 'capsules', id),
    /** `{capsule}/{generation}/` of sleeping capsules, `{snapshot}/1/` of snapshots that capsules are made of. */
    snapshots: join(root, 'snapshots'),
    /** The object store, where it is a folder of this machine. */
    objects: join(root, 'objects'),
    /** The embedded PostgreSQL: its programs, data and socket. */
    postgres: join(root, 'postgres'),
    /** Certificate authority and certificates of this machine. */
    pki: join(root, 'pki'),
    /** What the agent of a host proves itself with to the platform that it joined, JSON; mode 0600. */
    hostCredentials: join(root, 'host-token'),
    /** Key of a registration that is not complete yet; mode 0600. */
    hostKey: join(root, 'host-key'),
    /** The API key that the first start made; mode 0600. */
    apiKeyFile: join(root, 'api-key'),
    logs: join(root, 'logs'),
  } as const;
}

export type WrennDir = ReturnType<typeof wrennDir>;
