/** Variables of the host that mean the same in the guest. */
const passedOn = ['CI', 'FORCE_COLOR', 'NO_COLOR', 'TERM', 'COLORTERM', 'DEBUG', 'TZ'] as const;

/**
 * The environment of a command in the guest: a plain root login, what `passedOn` names, and what
 * the caller asks for.
 */
export function guestEnvironment(
  host: NodeJS.ProcessEnv,
  wanted: Readonly<Record<string, string>> = {},
): Record<string, string> {
  const environment: Record<string, string> = {
    PATH: '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin',
    HOME: '/root',
    USER: 'root',
    SHELL: '/bin/bash',
    LANG: 'C.UTF-8',
    TERM: 'dumb',
  };
  for (const name of passedOn) {
    const value = host[name];
    if (value !== undefined) environment[name] = value;
  }
  return { ...environment, ...wanted };
}
