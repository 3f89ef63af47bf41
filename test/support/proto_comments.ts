import { readdirSync, readFileSync } from 'node:fs';
import { packageFile } from '../../src/package.js';

/** The comments of a proto file by name: `Message.field`, `Service.Method`, or the name of an enum value. */
function commentsOf(file: string): Map<string, string> {
  const comments = new Map<string, string>();
  let message = '';
  let comment: string[] = [];
  for (const line of readFileSync(packageFile(`proto/agentllm/v1/${file}`), 'utf8').split('\n')) {
    const commentLine = /^\s*\/\/ ?(.*)$/.exec(line)?.[1];
    if (commentLine !== undefined) {
      comment.push(commentLine);
      continue;
    }
    message = /^(?:message|enum|service) (\w+) \{/.exec(line)?.[1] ?? message;
    const field = /^\s+(?:optional |repeated )?[\w.]+ (\w+) = \d+;/.exec(line)?.[1];
    const value = /^\s+([A-Z][A-Z0-9_]+) = \d+;/.exec(line)?.[1];
    const method = /^\s+rpc (\w+)\(/.exec(line)?.[1];
    const member = field ?? method;
    const name = value ?? (member && `${message}.${member}`);
    if (name) comments.set(name, comment.join(' ').trim());
    comment = [];
  }
  return comments;
}

/** The comments of the contract. */
export const comments = new Map(
  readdirSync(packageFile('proto/agentllm/v1'))
    .filter((file) => file.endsWith('.proto'))
    .flatMap((file) => [...commentsOf(file)]),
);
