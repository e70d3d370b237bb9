import manifest from '../package.json' with { type: 'json' };

/** Version of this agent. */
export const AGENT_VERSION = manifest.version;
