const MAX_REDIRECTS = 20;

/** Where a browser ended. */
export interface Visit {
  readonly url: URL;
  /** Undefined: it ended at an address that was not to be asked. */
  readonly answer: Response | undefined;
}

// Answers are of many shapes, and a test that reads a wrong one fails.
// biome-ignore lint/suspicious/noExplicitAny: see above
type Json = any;

/** As much of a browser as logins need: it keeps cookies per host, and follows redirects. */
export class Browser {
  readonly #cookies = new Map<string, Map<string, string>>();

  /** One request with the cookies of its host. Redirects are not followed. */
  async request(url: URL | string, init: RequestInit = {}): Promise<Response> {
    const target = new URL(url);
    const headers = new Headers(init.headers);
    const cookies = [...this.#jar(target)].map(([name, value]) => `${name}=${value}`);
    if (cookies.length > 0) headers.set('cookie', cookies.join('; '));
    const answer = await fetch(target, { ...init, headers, redirect: 'manual' });
    for (const line of answer.headers.getSetCookie()) this.#keep(target, line);
    return answer;
  }

  /** Opens a page, and what it leads to, up to an address at which to stop. */
  async visit(url: URL | string, isEnd: (url: URL) => boolean, init: RequestInit = {}): Promise<Visit> {
    let target = new URL(url);
    let request = init;
    for (let hop = 0; hop < MAX_REDIRECTS; hop += 1) {
      if (isEnd(target)) return { url: target, answer: undefined };
      const answer = await this.request(target, request);
      const location = answer.headers.get('location');
      if (location === null) return { url: target, answer };
      await answer.body?.cancel();
      target = new URL(location, target);
      request = {};
    }
    throw new Error(`${url} leads in circles`);
  }

  /** A page's request to its own server. By default a POST where there is JSON to send, else a GET. */
  async call(
    url: URL | string,
    { method, json, token }: { method?: string; json?: unknown; token?: string } = {},
  ): Promise<{ status: number; body: Json; headers: Headers }> {
    const answer = await this.request(url, {
      method: method ?? (json === undefined ? 'GET' : 'POST'),
      headers: {
        origin: new URL(url).origin,
        ...(json === undefined ? {} : { 'content-type': 'application/json' }),
        ...(token === undefined ? {} : { authorization: `Bearer ${token}` }),
      },
      ...(json === undefined ? {} : { body: JSON.stringify(json) }),
    });
    const text = await answer.text();
    return { status: answer.status, body: text === '' ? undefined : JSON.parse(text), headers: answer.headers };
  }

  #jar({ hostname }: URL): Map<string, string> {
    const jar = this.#cookies.get(hostname) ?? new Map<string, string>();
    this.#cookies.set(hostname, jar);
    return jar;
  }

  #keep(url: URL, line: string): void {
    const [pair = '', ...attributes] = line.split(';').map((part) => part.trim());
    const name = pair.slice(0, pair.indexOf('='));
    const expires = attributes.find((attribute) => /^expires=/i.test(attribute))?.slice('expires='.length);
    const isOver =
      attributes.some((attribute) => /^max-age=0$/i.test(attribute)) ||
      (expires !== undefined && new Date(expires).getTime() <= Date.now());
    if (isOver) this.#jar(url).delete(name);
    else this.#jar(url).set(name, pair.slice(name.length + 1));
  }
}
