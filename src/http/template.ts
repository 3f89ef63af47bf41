/** A path template of google.api.http, compiled. */
export interface Template {
  /** Matches the encoded path of a request; one group for each variable. */
  readonly pattern: RegExp;
  /** The field paths of the variables, in the order of the groups. */
  readonly variables: readonly string[];
  /** The sort key of templates: in each segment a literal precedes a variable, which precedes the rest of a path. */
  readonly rank: string;
  /** The literal parts of the path; undefined for each variable. */
  readonly parts: readonly (string | undefined)[];
}

/** Writes a template in the syntax of OpenAPI, with `names` for its variables. */
export function writeTemplate({ parts }: Template, names: readonly string[]): string {
  const remaining = [...names];
  return parts.map((part) => part ?? `/{${remaining.shift()}}`).join('');
}

const SEGMENT = /\/(?:\{([a-z][\w.]*)(?:=([^{}]+))?\}|([^/{}:*]+))/gy;
const VERB = /^(?::([a-zA-Z]\w*))?$/;

/** Compiles templates such as `/v1/agents/{agent.id}/configs:reorder` and `/v1/models/{name=**}`. */
export function compileTemplate(text: string): Template {
  let source = '';
  let rank = '';
  let end = 0;
  const variables: string[] = [];
  const parts: (string | undefined)[] = [];
  for (const [whole, variable, pattern = '*', literal] of text.matchAll(SEGMENT)) {
    end += whole.length;
    const compiled = compilePattern(literal ?? pattern);
    source += variable ? `/(${compiled.source})` : `/${compiled.source}`;
    rank += compiled.rank;
    parts.push(variable ? undefined : `/${literal}`);
    if (variable) variables.push(variable);
  }
  const tail = VERB.exec(text.slice(end));
  if (!tail || end === 0) throw new Error(`${text} is not a path template`);
  const verb = tail[1];
  if (verb) parts.push(`:${verb}`);
  const pattern = new RegExp(`^${source}${verb ? `:${verb}` : ''}$`);
  return { pattern, variables, parts, rank: rank + (verb ? '0' : '1') };
}

/** `*` matches one segment, `**` one or more, anything else matches itself. */
function compilePattern(pattern: string): { source: string; rank: string } {
  const kinds = pattern.split('/').map((segment) => {
    if (segment === '*') return { source: '[^/]+', rank: '1' };
    if (segment === '**') return { source: '[^/].*', rank: '2' };
    return { source: segment.replace(/[^\w-]/g, '\\$&'), rank: '0' };
  });
  return { source: kinds.map((k) => k.source).join('/'), rank: kinds.map((k) => k.rank).join('') };
}
