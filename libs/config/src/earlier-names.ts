type Environment = Readonly<Record<string, string | undefined>>;

/**
 * An environment in which variables that go by an earlier name have the name of today too. Where both are set, that of
 * today counts.
 *
 * @param earlier names of today by their earlier ones
 */
export function withEarlierNames(env: Environment, earlier: Readonly<Record<string, string>>): Environment {
  const added = Object.entries(earlier).flatMap(([old, name]) => (env[old] && !env[name] ? [[name, env[old]]] : []));
  return { ...env, ...Object.fromEntries(added) };
}
