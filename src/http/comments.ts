import type {
  DescEnum,
  DescEnumValue,
  DescField,
  DescFile,
  DescMessage,
  DescMethod,
  DescService,
} from '@bufbuild/protobuf';

type Described = DescService | DescMethod | DescMessage | DescField | DescEnum | DescEnumValue;

const commentsByFile = new WeakMap<DescFile, ReadonlyMap<string, string>>();

/** The comment of a descriptor in its proto file, without line breaks; empty if there is none. */
export function commentOf(desc: Described): string {
  const file = 'file' in desc ? desc.file : desc.parent.file;
  let comments = commentsByFile.get(file);
  if (!comments) {
    const locations = file.proto.sourceCodeInfo?.location ?? [];
    comments = new Map(locations.map((location) => [location.path.join('.'), unwrap(location.leadingComments)]));
    commentsByFile.set(file, comments);
  }
  return comments.get(pathOf(desc).join('.')) ?? '';
}

/** Joins the lines of each paragraph. */
const unwrap = (comment: string) =>
  comment
    .split(/\n\s*\n/)
    .map((paragraph) => paragraph.trim().replace(/\s*\n\s*/g, ' '))
    .join('\n\n');

/** The path of a descriptor in its FileDescriptorProto, as in SourceCodeInfo: field numbers and indexes. */
function pathOf(desc: Described): number[] {
  switch (desc.kind) {
    case 'service':
      return [6, desc.file.proto.service.indexOf(desc.proto)];
    case 'rpc':
      return [...pathOf(desc.parent), 2, desc.parent.proto.method.indexOf(desc.proto)];
    case 'field':
      return [...pathOf(desc.parent), 2, desc.parent.proto.field.indexOf(desc.proto)];
    case 'enum_value':
      return [...pathOf(desc.parent), 2, desc.parent.proto.value.indexOf(desc.proto)];
    case 'message':
      if (!desc.parent) return [4, desc.file.proto.messageType.indexOf(desc.proto)];
      return [...pathOf(desc.parent), 3, desc.parent.proto.nestedType.indexOf(desc.proto)];
    case 'enum':
      if (!desc.parent) return [5, desc.file.proto.enumType.indexOf(desc.proto)];
      return [...pathOf(desc.parent), 4, desc.parent.proto.enumType.indexOf(desc.proto)];
  }
}
