/** One event of a stream of server-sent events. */
export interface SseEvent {
  /** The event as it arrived, with the empty line at its end. */
  readonly text: string;
  /** The data; undefined for a comment and for an event without data. */
  readonly data: string | undefined;
}

const BOUNDARY = /\r\n\r\n|\n\n|\r\r/g;

/** Splits a stream of text into events. */
export class SseSplitter {
  private rest = '';

  /** Characters of the event that has not ended. */
  get pending(): number {
    return this.rest.length;
  }

  /** Adds text and returns the events that are complete. */
  push(text: string): SseEvent[] {
    // The boundary between events can begin in the text of the previous call.
    BOUNDARY.lastIndex = Math.max(0, this.rest.length - 3);
    const all = this.rest + text;
    const events: SseEvent[] = [];
    let start = 0;
    for (let match = BOUNDARY.exec(all); match; match = BOUNDARY.exec(all)) {
      events.push(toEvent(all.slice(start, BOUNDARY.lastIndex)));
      start = BOUNDARY.lastIndex;
    }
    this.rest = start === 0 ? all : all.slice(start);
    return events;
  }

  /** The last event, if the stream ended without the empty line after it. */
  end(): SseEvent | undefined {
    const { rest } = this;
    this.rest = '';
    return rest.trim() === '' ? undefined : toEvent(`${rest}\n\n`);
  }
}

function toEvent(text: string): SseEvent {
  const lines = text.includes('\r') ? text.replaceAll(/\r\n?/g, '\n') : text;
  let data: string | undefined;
  for (let start = 0, end = lines.indexOf('\n'); end >= 0; start = end + 1, end = lines.indexOf('\n', start)) {
    if (!lines.startsWith('data:', start)) continue;
    const line = lines.slice(start + (lines[start + 5] === ' ' ? 6 : 5), end);
    data = data === undefined ? line : `${data}\n${line}`;
  }
  return { text, data };
}
