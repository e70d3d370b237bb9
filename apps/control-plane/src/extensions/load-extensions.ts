import { pathToFileURL } from 'node:url';
import { z } from 'zod';
import type { Extension } from './extension.ts';

const moduleSchema = z.object({
  extension: z.object({
    name: z
      .string()
      .regex(/^[a-z][a-z0-9-]{0,31}$/, 'must be at most 32 lower-case letters, digits and "-", a letter first'),
    prefix: z
      .string()
      .regex(/^\/v1(\/[a-z0-9-]+)+$/, 'must be a path such as /v1/billing')
      .optional(),
    register: z.custom<Extension['register']>((value) => typeof value === 'function', 'must be a function'),
  }),
});

/**
 * Imports the modules of extensions.
 *
 * @param paths absolute
 * @throws Error that names the one that cannot be used
 */
export async function loadExtensions(paths: readonly string[]): Promise<Extension[]> {
  const loaded: Extension[] = [];
  for (const path of paths) {
    const extension = await loadOne(path);
    if (loaded.some(({ name }) => name === extension.name))
      throw new Error(`WRENN_EXTENSIONS names two extensions that are called ${extension.name}.`);
    loaded.push(extension);
  }
  return loaded;
}

async function loadOne(path: string): Promise<Extension> {
  let module: unknown;
  try {
    module = await import(pathToFileURL(path).href);
  } catch (cause) {
    throw new Error(`The extension ${path} cannot be loaded: ${messageOf(cause)}`, { cause });
  }
  const { success, data, error } = moduleSchema.safeParse(module);
  if (!success) {
    const problems = error.issues.map((issue) => `${issue.path.join('.')}: ${issue.message}`).join('; ');
    throw new Error(`The extension ${path} does not export what an extension must: ${problems}`);
  }
  const { extension } = module as { extension: Extension };
  const { name, prefix } = data.extension;
  // Called on what the module exports: it may be a class's instance.
  return { name, ...(prefix ? { prefix } : {}), register: (context) => extension.register(context) };
}

export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
