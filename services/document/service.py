"""The servicer of documents: proto to domain to proto."""

from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

import grpc
from document.v1 import document_pb2, document_pb2_grpc
from google.api import httpbody_pb2
from google.protobuf import empty_pb2
from google.type import date_pb2

from services.document.domain import Document
from services.document.downloads import Downloads
from services.document.events import check_to_proto
from services.document.objects import Objects
from services.document.store import Documents
from services.document.upload import Upload, Uploads
from services.document.verification.store import Verifications
from services.runtime import caller, paging
from services.runtime.contract import EDGE

Context = grpc.aio.ServicerContext[Any, Any]


class DocumentService(document_pb2_grpc.DocumentServiceServicer):
    """See proto/document/v1/document.proto."""

    def __init__(self, documents: Documents, objects: Objects, uploads: Uploads, verifications: Verifications) -> None:
        self._documents = documents
        self._objects = objects
        self._downloads = Downloads(documents, objects)
        self._uploads = uploads
        self._verifications = verifications

    async def UploadDocument(
        self, requests: AsyncIterator[document_pb2.UploadDocumentRequest], context: Context
    ) -> document_pb2.Document:
        headers = context.invocation_metadata() or ()
        upload = Upload(
            caller.current().user_id,
            _bodies(requests),
            content_digest=", ".join(str(value) for name, value in headers if name == "content-digest"),
            content_encoding=", ".join(str(value) for name, value in headers if name == "content-encoding"),
            length=next((int(value) for name, value in headers if name == "x-content-length"), None),
        )
        return await self._uploads.take(upload, _document)

    async def GetDocument(self, request: document_pb2.GetDocumentRequest, _: Context) -> document_pb2.Document:
        document = await self._documents.get(request.document_id)
        _require_visible(document, "officer")
        return _document(document)

    async def ListDocuments(
        self, request: document_pb2.ListDocumentsRequest, _: Context
    ) -> document_pb2.ListDocumentsResponse:
        owner_id = caller.current().user_id
        page = paging.page(request.page_size, request.page_token, "documents", owner_id)
        documents, token = page.cut(await self._documents.list_of(owner_id, page), lambda document: document.id)
        return document_pb2.ListDocumentsResponse(documents=map(_document, documents), next_page_token=token)

    async def DownloadDocument(
        self, request: document_pb2.DownloadDocumentRequest, context: Context
    ) -> AsyncGenerator[httpbody_pb2.HttpBody]:
        document = await self._documents.get(request.document_id)
        _require_visible(document, "officer")
        headers, pieces = await self._downloads.open(document, context.invocation_metadata() or ())
        await context.send_initial_metadata(tuple(headers))
        if pieces is not None:
            async for piece in pieces:
                yield httpbody_pb2.HttpBody(content_type=document.file.content_type, data=piece)

    async def VerifyDocument(self, request: document_pb2.VerifyDocumentRequest, _: Context) -> document_pb2.Document:
        document = await self._documents.get(request.document_id)
        if caller.current().peer == EDGE:
            _require_visible(document, "officer")
        await self._verifications.begin_again(document.id)
        return _document(await self._documents.get(document.id))

    async def DeleteDocument(self, request: document_pb2.DeleteDocumentRequest, _: Context) -> empty_pb2.Empty:
        document = await self._documents.get(request.document_id)
        _require_visible(document)
        await self._documents.remove(document.id)  # first: a file without a row is swept, a row without a file lies
        await self._objects.discard(document.id)
        return empty_pb2.Empty()

    async def FindIdentityDocument(
        self, request: document_pb2.FindIdentityDocumentRequest, _: Context
    ) -> document_pb2.FindIdentityDocumentResponse:
        document_id = await self._documents.find_identity(request.user_id)
        return document_pb2.FindIdentityDocumentResponse(document_id=document_id)


async def _bodies(requests: AsyncIterator[document_pb2.UploadDocumentRequest]) -> AsyncIterator[httpbody_pb2.HttpBody]:
    async for request in requests:
        body = request.content
        del request
        yield body
        del body  # while the next is awaited


def _require_visible(document: Document, *roles: str) -> None:
    """Lets the owner pass, and callers with one of these roles."""
    caller.current().require_owner(document.owner_id, f"Document {document.id}", *roles)


def _document(document: Document) -> document_pb2.Document:
    proto = document_pb2.Document(
        id=document.id,
        owner_id=document.owner_id,
        kind=document_pb2.Document.Kind.ValueType(document.kind.value),
        file_name=document.file.name,
        content_type=document.file.content_type,
        size_bytes=document.file.size_bytes,
        sha256=document.file.sha256,
        state=document_pb2.Document.State.ValueType(document.state.value),
        checks=map(check_to_proto, document.checks),
    )
    proto.create_time.FromDatetime(document.create_time)
    if last := document.expire_date:
        proto.expire_date.CopyFrom(date_pb2.Date(year=last.year, month=last.month, day=last.day))
    return proto
