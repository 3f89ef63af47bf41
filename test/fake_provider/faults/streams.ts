/** How the response of a request went, as a client sees it. */
export interface Seen {
  readonly status?: number;
  readonly headers?: Headers;
  readonly text: string;
  /** The code or the message of the error that ended it; undefined: it ended regularly. */
  readonly error?: string;
}

/** A response that is being read. */
export interface Watched {
  /** The text so far. */
  text: string;
  readonly done: Promise<Seen>;
}

/** Posts a body and reads the response until it ends in any way, or until `signal` aborts it. */
export function watch(
  url: string,
  body: object,
  headers: Record<string, string> = {},
  signal: AbortSignal | null = null,
): Watched {
  const watched = { text: '' };
  const init = { method: 'POST', body: JSON.stringify(body), headers, signal };
  return Object.assign(watched, { done: read(url, init, watched) });
}

export const see = (...args: Parameters<typeof watch>): Promise<Seen> => watch(...args).done;

async function read(url: string, init: RequestInit, watched: { text: string }): Promise<Seen> {
  let seen = {};
  try {
    const response = await fetch(url, init);
    seen = { status: response.status, headers: response.headers };
    const decoder = new TextDecoder();
    for await (const chunk of response.body as unknown as AsyncIterable<Uint8Array>)
      watched.text += decoder.decode(chunk, { stream: true });
    return { ...seen, text: watched.text };
  } catch (error) {
    return { ...seen, text: watched.text, error: causeOf(error) };
  }
}

function causeOf(error: unknown): string {
  const { cause, name } = error as { cause?: { code?: string; message?: string }; name?: string };
  return cause?.code ?? cause?.message ?? name ?? 'unknown';
}

/** Waits until a condition holds; fails after two seconds. */
export async function until(condition: () => boolean, what: string): Promise<void> {
  for (let tries = 0; tries < 400; tries++) {
    if (condition()) return;
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
  throw new Error(`not within two seconds: ${what}`);
}
