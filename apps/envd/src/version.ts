import packageJson from '../package.json' with { type: 'json' };

export const ENVD_VERSION: string = packageJson.version;

/**
 * The version of E2B's envd whose interface this one has. Its clients switch features on by it: 0.6.4 is the first with
 * file metadata, entries in watch events and watches on network mounts.
 */
export const E2B_ENVD_VERSION = '0.6.4';
